//! The signature of a request from Inngest.
//!
//! The header `x-inngest-signature` is `t=<Unix seconds>&s=<hex>`, where `s` is the HMAC-SHA256 of the body's
//! bytes followed by the digits of `t`.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use hmac::Mac;

use super::{Api, Mode, keys::SigningKey};

pub(crate) const HEADER: &str = "x-inngest-signature";

/// How old a signature may be, and how far ahead of this machine's clock.
const WINDOW: Duration = Duration::from_secs(5 * 60);

/// What a request says of who sent it, before its body is read.
#[derive(Debug)]
pub(crate) enum Claim<'a> {
    /// Nothing has to be proved: dev mode, and no signature or no key to check it with.
    Open,
    /// Its signature is recent, and has yet to be held against the body.
    Signed(Signature<'a>),
}

/// A recent signature.
#[derive(Debug)]
pub(crate) struct Signature<'a> {
    /// The digits, as they were signed.
    time: &'a str,
    mac: [u8; 32],
}

/// Why a request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing,
    Malformed,
    Expired,
    Wrong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => {
                "the request has no `x-inngest-signature`; only Inngest may send it, unless the app runs in \
                 dev mode (`INNGEST_DEV=1`)"
            }
            Self::Malformed => "`x-inngest-signature` is not `t=<Unix seconds>&s=<64 hex digits>`",
            Self::Expired => {
                "the signature is more than 5 minutes away from this machine's clock; see that both \
                 clocks are right"
            }
            Self::Wrong => {
                "the signature is not one of this body with the app's signing key; see that \
                 `INNGEST_SIGNING_KEY` is that of the environment, and that no proxy changes the body"
            }
        })
    }
}

impl Api {
    /// Looks at a request's signature header, as far as that goes without its body.
    pub(crate) fn claim<'a>(
        &self,
        header: Option<&'a [u8]>,
        now: SystemTime,
    ) -> Result<Claim<'a>, Refusal> {
        let has_key = self.signing_keys().next().is_some();
        match (header, self.mode()) {
            (None, Mode::Cloud) => Err(Refusal::Missing),
            (None, Mode::Dev) => Ok(Claim::Open),
            (Some(_), Mode::Dev) if !has_key => Ok(Claim::Open),
            (Some(header), _) => {
                let (signature, time) = parse(header).ok_or(Refusal::Malformed)?;
                let age = now.duration_since(time).unwrap_or_else(|ahead| ahead.duration());
                // `t` has whole seconds, and so has the window.
                if age.as_secs() > WINDOW.as_secs() {
                    return Err(Refusal::Expired);
                }
                Ok(Claim::Signed(signature))
            }
        }
    }

    /// Whether the body, too, is what was signed: in constant time, with either key.
    pub(crate) fn verify(&self, signature: &Signature<'_>, body: &[u8]) -> Result<(), Refusal> {
        let signed_with = |key: &SigningKey| {
            let mut mac = key.mac();
            mac.update(body);
            mac.update(signature.time.as_bytes());
            mac.verify_slice(&signature.mac).is_ok()
        };
        match self.signing_keys().any(signed_with) {
            true => Ok(()),
            false => Err(Refusal::Wrong),
        }
    }

    /// The header as it would be with the first key, for somebody who knows no other one.
    #[cfg(feature = "sdk")]
    pub(crate) fn sign_again(&self, signature: &Signature<'_>, body: &[u8]) -> Option<String> {
        let mut mac = self.signing_keys().next()?.mac();
        mac.update(body);
        mac.update(signature.time.as_bytes());
        let mac = hex::encode(mac.finalize().into_bytes());
        Some(format!("t={}&s={mac}", signature.time))
    }
}

/// The two parts, whatever else stands beside them.
fn parse(header: &[u8]) -> Option<(Signature<'_>, SystemTime)> {
    let header = std::str::from_utf8(header).ok()?;
    let (mut time, mut mac) = (None, None);
    for part in header.split('&') {
        match part.split_once('=')? {
            ("t", value) if time.is_none() => time = Some(value),
            ("s", value) if mac.is_none() => mac = Some(value),
            ("t" | "s", _) => return None,
            _ => {}
        }
    }
    let time = time?;
    if !time.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = Duration::from_secs(time.parse().ok()?);
    let at = SystemTime::UNIX_EPOCH.checked_add(seconds)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(mac?, &mut bytes).ok()?;
    Some((Signature { time, mac: bytes }, at))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    struct Recorded {
        header: String,
        body: Vec<u8>,
        key: String,
        time: u64,
    }

    fn recorded() -> Vec<Recorded> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/signed");
        let calls: Vec<Recorded> = fs::read_dir(folder)
            .unwrap()
            .map(|file| {
                let call: serde_json::Value =
                    serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
                let header = call["headers"][HEADER].as_str().unwrap().to_owned();
                let time = header[2..].split('&').next().unwrap().parse().unwrap();
                Recorded {
                    header,
                    body: call["body"].as_str().unwrap().into(),
                    key: call["signing_key"].as_str().unwrap().to_owned(),
                    time,
                }
            })
            .collect();
        assert_eq!(calls.len(), 2);
        calls
    }

    fn cloud(key: &str, fallback: Option<&str>) -> Option<Api> {
        let builder = Api::builder().dev(false).signing_key(key);
        let builder = match fallback {
            Some(fallback) => builder.signing_key_fallback(fallback),
            None => builder,
        };
        builder.build().ok()
    }

    fn check(api: &Api, header: &str, body: &[u8], now: u64) -> Result<(), Refusal> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        match api.claim(Some(header.as_bytes()), now)? {
            Claim::Signed(signature) => api.verify(&signature, body),
            Claim::Open => panic!("cloud mode takes nothing unsigned"),
        }
    }

    #[test]
    fn recorded_calls_verify_at_their_time_with_either_key() {
        for Recorded { header, body, key, time } in recorded() {
            let api = cloud(&key, None).unwrap();
            assert_eq!(check(&api, &header, &body, time), Ok(()));
            let rotated = cloud("signkey-test-00", Some(&key)).unwrap();
            assert_eq!(check(&rotated, &header, &body, time), Ok(()));
        }
    }

    #[test]
    fn the_window_is_five_minutes_in_both_directions() {
        for Recorded { header, body, key, time } in recorded() {
            let api = cloud(&key, None).unwrap();
            for (now, expected) in [
                (time - 301, Err(Refusal::Expired)),
                (time - 300, Ok(())),
                (time + 300, Ok(())),
                (time + 301, Err(Refusal::Expired)),
                (time + 3600, Err(Refusal::Expired)),
            ] {
                assert_eq!(check(&api, &header, &body, now), expected, "{now}");
            }
        }
    }

    /// Every bit, one at a time.
    fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..bytes.len() * 8).map(|bit| {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
    }

    #[test]
    fn one_bit_changed_anywhere_in_the_body_the_time_or_the_key_is_refused() {
        for Recorded { header, body, key, time } in recorded() {
            let api = cloud(&key, None).unwrap();
            for body in flipped(&body) {
                assert_eq!(check(&api, &header, &body, time), Err(Refusal::Wrong));
            }
            let digits = 2..2 + time.to_string().len();
            for digits_flipped in flipped(&header.as_bytes()[digits.clone()]) {
                let mut changed = header.clone().into_bytes();
                changed[digits.clone()].copy_from_slice(&digits_flipped);
                let at = |now| {
                    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
                    match api.claim(Some(&changed), now) {
                        Ok(Claim::Signed(signature)) => api.verify(&signature, &body),
                        Ok(Claim::Open) => Ok(()),
                        Err(refusal) => Err(refusal),
                    }
                };
                assert!(at(time).is_err());
                // Also at the time that it now names, so that it is not only its age that counts.
                if let Some(now) =
                    std::str::from_utf8(&digits_flipped).ok().and_then(|t| t.parse().ok())
                {
                    assert_eq!(at(now), Err(Refusal::Wrong));
                }
            }
            let secret = key.rfind('-').unwrap() + 1;
            for changed in flipped(&key.as_bytes()[secret..]) {
                let changed = [&key.as_bytes()[..secret], &changed].concat();
                let api = String::from_utf8(changed).ok().and_then(|key| cloud(&key, None));
                // A key that is not hexadecimal any more is refused when the API is built.
                if let Some(api) = api {
                    assert_eq!(check(&api, &header, &body, time), Err(Refusal::Wrong));
                }
            }
        }
    }

    #[test]
    fn a_header_of_another_form_is_malformed() {
        let api = cloud("signkey-test-00", None).unwrap();
        let s = "0".repeat(64);
        for header in [
            String::new(),
            "t=1".into(),
            format!("s={s}"),
            format!("t=&s={s}"),
            format!("t=+1&s={s}"),
            format!("t=0x1&s={s}"),
            format!("t=1.5&s={s}"),
            format!("t=1&t=1&s={s}"),
            format!("t=99999999999999999999&s={s}"),
            format!("t=18446744073709551615&s={s}"),
            "t=1&s=00".into(),
            format!("t=1&s={}", "x".repeat(64)),
            format!("t=1&s={s}00"),
            format!("t=1&s={s}&"),
        ] {
            assert_eq!(check(&api, &header, b"", 1), Err(Refusal::Malformed), "{header}");
        }
    }

    #[test]
    fn in_dev_mode_a_signature_counts_only_if_there_is_one_and_a_key() {
        let s = format!("t=1&s={}", "0".repeat(64));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let open = Api::builder().dev(true).build().unwrap();
        assert!(matches!(open.claim(Some(s.as_bytes()), now), Ok(Claim::Open)));
        let keyed = Api::builder().dev(true).signing_key("signkey-test-00").build().unwrap();
        assert!(matches!(keyed.claim(None, now), Ok(Claim::Open)));
        assert_eq!(check(&keyed, &s, b"", 1), Err(Refusal::Wrong));
    }
}
