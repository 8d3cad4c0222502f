//! The keys, which are shown to nobody.

use std::fmt;

use hmac::{Hmac, KeyInit};
use http::HeaderValue;
use sha2::{Digest, Sha256};

/// A signing key: it verifies what Inngest sends, and authorises what is sent to Inngest.
#[derive(Clone)]
pub(crate) struct SigningKey {
    /// With the key already taken in.
    mac: Hmac<Sha256>,
    /// The key's text without `signkey-<env>-`.
    text: String,
    /// Everything before it.
    prefix: String,
    /// The hex SHA-256 of what the text stands for.
    hash: String,
}

impl SigningKey {
    /// Reads `signkey-<env>-<hex>`, or the hex alone, which is what a self-hosted server is given.
    ///
    /// What is wrong with it is said without repeating any of it.
    pub(super) fn parse(key: &str) -> Result<Self, String> {
        let (prefix, text) = match key.strip_prefix("signkey-").and_then(|_| key.rfind('-')) {
            Some(dash) => key.split_at(dash + 1),
            None => ("", key),
        };
        if !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("is no signing key".to_owned());
        }
        let bytes = match hex::decode(text) {
            Ok(bytes) if !bytes.is_empty() => bytes,
            _ => return Err("is no signing key".to_owned()),
        };
        let mac = Hmac::new_from_slice(text.as_bytes()).expect("HMAC takes a key of any length");
        Ok(Self {
            mac,
            text: text.to_owned(),
            prefix: prefix.to_owned(),
            hash: hex::encode(Sha256::digest(&bytes)),
        })
    }

    /// An authenticator of its own for one message.
    pub(super) fn mac(&self) -> Hmac<Sha256> {
        self.mac.clone()
    }

    /// The token that authorises a request to the API: the key with its secret part hashed.
    fn bearer(&self) -> String {
        format!("{}{}", self.prefix, self.hash)
    }

    /// The header with the token, which `Debug` does not show.
    pub(super) fn authorization(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.bearer()))
            .expect("the prefix was found to be graphic, and the rest is hexadecimal");
        value.set_sensitive(true);
        value
    }

    /// Enough of the hash to tell keys apart, and too little to authorise anything.
    pub(crate) fn fingerprint(&self) -> &str {
        fingerprint(&self.hash)
    }

    /// What must be shown to nobody.
    pub(super) fn secrets(&self) -> [&str; 2] {
        [&self.text, &self.hash]
    }
}

/// Shows nothing of the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The key that events are sent with.
#[derive(Clone)]
pub(crate) struct EventKey(String);

impl EventKey {
    pub(super) fn parse(key: &str) -> Result<Self, String> {
        // It becomes a part of a path.
        match key.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#%".contains(&byte)) {
            true => Ok(Self(key.to_owned())),
            false => Err("is no event key".to_owned()),
        }
    }

    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&hex::encode(Sha256::digest(self.0.as_bytes()))).to_owned()
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

/// Shows nothing of the key.
impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventKey(..)")
    }
}

fn fingerprint(hash: &str) -> &str {
    const CHARS: usize = 12;
    &hash[..CHARS]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bearer_is_the_prefix_and_the_hash_of_the_decoded_key() {
        let key = SigningKey::parse("signkey-prod-12345678").unwrap();
        assert_eq!(
            key.bearer(),
            "signkey-prod-b2ed992186a5cb19f6668aade821f502c1d00970dfd0e35128d51bac4649916c"
        );
        assert_eq!(key.fingerprint(), "b2ed992186a5");
        assert_eq!(
            SigningKey::parse("12345678").unwrap().bearer(),
            key.bearer()["signkey-prod-".len()..]
        );
    }

    #[test]
    fn a_key_that_is_none_is_refused_without_being_shown() {
        for key in [
            "",
            "signkey-prod-",
            "signkey-prod-123",
            "signkey-prod-xyz0",
            "signkey-a\nb-00",
            "signkey",
            "hunter2",
        ] {
            let error = SigningKey::parse(key).unwrap_err();
            assert_eq!(error, "is no signing key");
        }
        assert_eq!(format!("{:?}", SigningKey::parse("abcd").unwrap()), "SigningKey(..)");
        assert!(EventKey::parse("a/b").is_err());
        assert_eq!(format!("{:?}", EventKey::parse("hunter2").unwrap()), "EventKey(..)");
    }
}
