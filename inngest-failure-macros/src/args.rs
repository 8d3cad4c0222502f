//! The arguments of the attribute, as they are written.

use std::{fmt::Display, str::FromStr, time::Duration};

use humantime::DurationError;
use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Error, Lit, LitInt, LitStr, Path, ext::IdentExt, parse::Parser};

/// What a value is, if the argument has one.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Text,
    Number,
    Duration,
    Rate,
    Path,
    Flag,
}

/// All arguments, sorted, each with an example.
const KNOWN: [(&str, Form, &str); 16] = [
    ("app", Form::Text, "app = \"shop\""),
    ("cancelled", Form::Flag, "cancelled"),
    ("concurrency", Form::Number, "concurrency = 10"),
    ("crate", Form::Path, "crate = my_crate::inngest_failure"),
    ("error", Form::Text, "error = \"CardError\""),
    ("fallback", Form::Flag, "fallback"),
    ("function", Form::Text, "function = \"checkout\""),
    ("id", Form::Text, "id = \"undo-checkout\""),
    ("idempotency", Form::Text, "idempotency = \"event.data.event.data.order_id\""),
    ("name", Form::Text, "name = \"undo a checkout\""),
    ("priority", Form::Number, "priority = 100"),
    ("rate_limit", Form::Rate, "rate_limit = \"1/5m\""),
    ("retries", Form::Number, "retries = 5"),
    ("step", Form::Text, "step = \"charge-card\""),
    ("throttle", Form::Rate, "throttle = \"10/1m\""),
    ("timeout", Form::Duration, "timeout = \"30s\""),
];

pub(crate) const MAX_RETRIES: u32 = 20;

/// How many seconds a run may be put before or after its turn.
const MAX_PRIORITY: u32 = 600;

/// The longest period of a rate limit, and that of a throttle.
const MAX_RATE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_THROTTLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A text: a literal, or the path of a constant.
#[derive(Clone)]
pub(crate) enum Text {
    Literal(LitStr),
    Const(Path),
}

impl ToTokens for Text {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Literal(literal) => literal.to_tokens(tokens),
            Self::Const(path) => path.to_tokens(tokens),
        }
    }
}

/// So many in each period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) limit: u32,
    pub(crate) period: Duration,
}

/// The arguments. One that is faulty is left out, but counts as given.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) app: Option<Text>,
    pub(crate) cancelled: Option<Span>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) krate: Option<Path>,
    pub(crate) error: Option<Text>,
    pub(crate) fallback: Option<Span>,
    pub(crate) function: Option<Text>,
    pub(crate) id: Option<Text>,
    pub(crate) idempotency: Option<Text>,
    pub(crate) name: Option<Text>,
    pub(crate) priority: Option<i32>,
    pub(crate) rate_limit: Option<Rate>,
    pub(crate) retries: Option<u32>,
    pub(crate) step: Option<Text>,
    pub(crate) throttle: Option<Rate>,
    pub(crate) timeout: Option<Duration>,
    given: Vec<(&'static str, Span)>,
}

impl Args {
    /// Reads a list of
    ///
    /// - `key`, for a flag
    /// - `key = "text"`, `key = path::OF_A_CONST`, for a text
    /// - `key = 5`, `key = -5`, for a number
    /// - `key = "30s"`, for a duration
    /// - `key = "10/1m"`, for a rate
    /// - `crate = some::path`
    ///
    /// separated by commas. What is wrong with each is added to `errors`.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Vec<Error>) -> Self {
        let mut args = Self::default();
        for argument in split_at_commas(ungrouped(tokens), errors) {
            if let Err(error) = args.argument(argument) {
                errors.push(error);
            }
        }
        args
    }

    /// Where the argument's key stands, if it was given, rightly or wrongly.
    pub(crate) fn given(&self, key: &str) -> Option<Span> {
        self.given.iter().find(|(given, _)| *given == key).map(|(_, span)| *span)
    }

    fn argument(&mut self, tokens: Vec<TokenTree>) -> Result<(), Error> {
        let mut tokens = tokens.into_iter();
        let Some(TokenTree::Ident(key)) = tokens.next_if_ident() else {
            return Err(self.not_an_argument(tokens.collect()));
        };
        let (name, form, example) = self.look_up(&key)?;
        if self.given(name).is_some() {
            return Err(Error::new(key.span(), format!("`{name}` is given twice; leave one out")));
        }
        self.given.push((name, key.span()));

        let value = value(name, form, example, &key, tokens.collect())?;
        match name {
            "app" => self.app = Some(text(name, example, value)?),
            "cancelled" => self.cancelled = Some(key.span()),
            "concurrency" => self.concurrency = Some(concurrency(value)?),
            "crate" => self.krate = Some(path(value)?),
            "error" => self.error = Some(text(name, example, value)?),
            "fallback" => self.fallback = Some(key.span()),
            "function" => self.function = Some(text(name, example, value)?),
            "id" => self.id = Some(text(name, example, value)?),
            "idempotency" => self.idempotency = Some(text(name, example, value)?),
            "name" => self.name = Some(text(name, example, value)?),
            "priority" => self.priority = Some(priority(value)?),
            "rate_limit" => self.rate_limit = Some(rate(name, example, MAX_RATE_LIMIT, value)?),
            "retries" => self.retries = Some(retries(value)?),
            "step" => self.step = Some(text(name, example, value)?),
            "throttle" => self.throttle = Some(rate(name, example, MAX_THROTTLE, value)?),
            "timeout" => self.timeout = Some(duration(value)?),
            _ => unreachable!("every known argument has an arm"),
        }
        Ok(())
    }

    fn look_up(&mut self, key: &Ident) -> Result<(&'static str, Form, &'static str), Error> {
        let written = key.unraw().to_string();
        if let Some(&known) = KNOWN.iter().find(|(name, ..)| *name == written) {
            return Ok(known);
        }
        let names: Vec<String> = KNOWN.iter().map(|(name, ..)| format!("`{name}`")).collect();
        let near = nearest(&written);
        let hint = match near {
            // What was meant is not missing as well.
            Some(near) => {
                self.given.push((near, key.span()));
                format!("did you mean `{near}`?")
            }
            None => "leave it out".to_owned(),
        };
        let message = format!(
            "unknown argument `{written}`; {hint} (the arguments are {})",
            names.join(", ")
        );
        Err(Error::new(key.span(), message))
    }

    fn not_an_argument(&mut self, tokens: TokenStream) -> Error {
        let message = match syn::parse2::<LitStr>(tokens.clone()) {
            Ok(literal) => {
                // What was meant is not missing as well.
                self.given.push(("function", literal.span()));
                format!("a text alone is no argument; write `function = {}`", quote!(#literal))
            }
            Err(_) => "not an argument; write `name = value`, such as `function = \"checkout\"`"
                .to_owned(),
        };
        Error::new_spanned(tokens, message)
    }
}

trait NextIfIdent {
    fn next_if_ident(&mut self) -> Option<TokenTree>;
}

impl NextIfIdent for std::vec::IntoIter<TokenTree> {
    fn next_if_ident(&mut self) -> Option<TokenTree> {
        matches!(self.as_slice().first(), Some(TokenTree::Ident(_))).then(|| self.next()).flatten()
    }
}

/// The known argument that was probably meant.
fn nearest(written: &str) -> Option<&'static str> {
    const ALIKE: f64 = 0.5;
    // What the same thing is called elsewhere.
    let synonym = match written {
        "fn" | "fn_id" | "function_id" | "for" => Some("function"),
        "retry" | "attempts" | "max_retries" => Some("retries"),
        "app_id" => Some("app"),
        "step_id" | "undo" | "undoes" => Some("step"),
        "duration" | "deadline" => Some("timeout"),
        _ => None,
    };
    let alike = || {
        KNOWN
            .iter()
            .map(|(name, ..)| (strsim::normalized_damerau_levenshtein(written, name), *name))
            .filter(|(score, _)| *score >= ALIKE)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name)
    };
    synonym.or_else(alike)
}

const NO_COMMA: &str = "expected a comma before this argument";

/// The tokens without the invisible groups in which `macro_rules!` wraps its fragments.
fn ungrouped(tokens: TokenStream) -> TokenStream {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
                ungrouped(group.stream())
            }
            token => token.into(),
        })
        .collect()
}

/// The tokens of each argument.
fn split_at_commas(tokens: TokenStream, errors: &mut Vec<Error>) -> Vec<Vec<TokenTree>> {
    let mut arguments = Vec::new();
    let mut argument = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => {
                if argument.is_empty() {
                    let message = "there is no argument before this comma; leave the comma out";
                    errors.push(Error::new(comma.span(), message));
                } else {
                    arguments.push(std::mem::take(&mut argument));
                }
            }
            TokenTree::Ident(key) if begins_argument(&argument, &key, tokens.peek()) => {
                errors.push(Error::new(key.span(), NO_COMMA));
                arguments.push(std::mem::replace(&mut argument, vec![key.into()]));
            }
            token => argument.push(token),
        }
    }
    if !argument.is_empty() {
        arguments.push(argument);
    }
    arguments
}

/// Whether `key` begins an argument although no comma stands between it and what is `before`.
fn begins_argument(before: &[TokenTree], key: &Ident, next: Option<&TokenTree>) -> bool {
    let ended = !matches!(before.last(), None | Some(TokenTree::Punct(_)));
    let is_key = match next {
        None => true,
        Some(TokenTree::Punct(punct)) => matches!(punct.as_char(), '=' | ','),
        Some(TokenTree::Ident(_)) => KNOWN.iter().any(|(name, ..)| key == name),
        Some(_) => false,
    };
    ended && is_key
}

/// The tokens after `=`; none for a flag.
fn value(
    name: &str,
    form: Form,
    example: &str,
    key: &Ident,
    tokens: TokenStream,
) -> Result<TokenStream, Error> {
    let mut tokens = tokens.into_iter();
    let first = tokens.next();
    let value = match first {
        Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => Some(tokens.collect()),
        None => None,
        Some(token) => {
            let message = match (&token, form) {
                (_, Form::Flag) => format!("`{name}` is a flag; write `{name}` alone"),
                (TokenTree::Group(group), _) if group.delimiter() == Delimiter::Parenthesis => {
                    format!("`{name}` takes its value after `=`; write `{example}`")
                }
                _ => format!("expected `=` or a comma after `{name}`; write `{example}`"),
            };
            return Err(Error::new(token.span(), message));
        }
    };
    match (form, value) {
        (Form::Flag, None) => Ok(TokenStream::new()),
        (Form::Flag, Some(value)) => {
            let value: TokenStream = value;
            let message = format!("`{name}` is a flag; write `{name}` alone, or leave it out");
            Err(Error::new_spanned(quote!(#key #value), message))
        }
        (_, Some(value)) if !value.is_empty() => Ok(value),
        _ => Err(Error::new(key.span(), format!("`{name}` has no value; write `{example}`"))),
    }
}

/// Parses all of `tokens` as a `T`. What follows a good value is an argument without its comma.
fn parse_all<T: syn::parse::Parse>(tokens: TokenStream, message: &str) -> Result<T, Error> {
    let whole = tokens.clone();
    let parser = |input: syn::parse::ParseStream<'_>| {
        let value: T = input.parse().map_err(|_| Error::new_spanned(&whole, message))?;
        if input.is_empty() {
            return Ok(value);
        }
        let rest: TokenStream = input.parse()?;
        let next: Vec<TokenTree> = rest.into_iter().collect();
        let error = match next.as_slice() {
            [TokenTree::Ident(key), ..] => Error::new(key.span(), NO_COMMA),
            _ => Error::new_spanned(&whole, message),
        };
        Err(error)
    };
    parser.parse2(tokens)
}

fn text(name: &str, example: &str, tokens: TokenStream) -> Result<Text, Error> {
    let message = format!(
        "`{name}` takes a string literal or the path of a `const` of type `&'static str`; write \
         `{example}`"
    );
    if let Some(TokenTree::Ident(_) | TokenTree::Punct(_)) = tokens.clone().into_iter().next()
        && !matches!(syn::parse2(tokens.clone()), Ok(Lit::Bool(_)))
    {
        return parse_all(tokens, &message).map(Text::Const);
    }
    let literal: LitStr = parse_all(tokens, &message)?;
    if literal.value().trim().is_empty() {
        return Err(Error::new(literal.span(), format!("`{name}` is blank; write `{example}`")));
    }
    Ok(Text::Literal(literal))
}

fn number<N: FromStr<Err: Display>>(tokens: TokenStream, message: &str) -> Result<N, Error> {
    let literal: LitInt = parse_all(tokens.clone(), message)?;
    literal
        .base10_parse()
        .ok()
        .filter(|_| literal.suffix().is_empty())
        .ok_or_else(|| Error::new_spanned(tokens, message))
}

fn retries(tokens: TokenStream) -> Result<u32, Error> {
    let message = format!(
        "`retries` takes a whole number from 0 to {MAX_RETRIES}, which is as often as Inngest retries"
    );
    let retries = number(tokens.clone(), &message)?;
    if retries > MAX_RETRIES {
        return Err(Error::new_spanned(tokens, message));
    }
    Ok(retries)
}

fn concurrency(tokens: TokenStream) -> Result<u32, Error> {
    let message = "`concurrency` takes a whole number from 1; leave it out for no limit";
    match number(tokens.clone(), message)? {
        0 => Err(Error::new_spanned(tokens, message)),
        limit => Ok(limit),
    }
}

fn priority(tokens: TokenStream) -> Result<i32, Error> {
    let message = format!(
        "`priority` takes a whole number of seconds from -{MAX_PRIORITY} to {MAX_PRIORITY}, by which the \
         handler's runs go before older ones"
    );
    let seconds: i32 = number(tokens.clone(), &message)?;
    if seconds.unsigned_abs() > MAX_PRIORITY {
        return Err(Error::new_spanned(tokens, message));
    }
    Ok(seconds)
}

/// A limit and its period, `10/1m`.
fn rate(name: &str, example: &str, max: Duration, tokens: TokenStream) -> Result<Rate, Error> {
    let message =
        format!("`{name}` takes a number of runs and a period in quotes; write `{example}`");
    let literal: LitStr = parse_all(tokens, &message)?;
    let refuse = |message: String| Error::new(literal.span(), message);
    let value = literal.value();
    let (limit, period) = value.split_once('/').ok_or_else(|| refuse(message))?;
    let limit = match limit.trim().parse() {
        Ok(limit) if limit > 0 => limit,
        _ => {
            let message =
                format!("`{name}` has no whole number from 1 before the `/`; write `{example}`");
            return Err(refuse(message));
        }
    };
    let period = parse_duration(period)
        .map_err(|fault| refuse(format!("the period of `{name}` {fault}; write `{example}`")))?;
    if period < Duration::from_secs(1) || period > max || period.subsec_nanos() > 0 {
        let message = format!(
            "the period of `{name}` is from a second to {}, in whole seconds, for Inngest takes no other; write \
             `{example}`",
            if max == MAX_THROTTLE { "7 days" } else { "24 hours" },
        );
        return Err(refuse(message));
    }
    Ok(Rate { limit, period })
}

/// What is wrong with it otherwise.
fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|error| match error {
        DurationError::Empty => "is blank".to_owned(),
        DurationError::NumberOverflow => "is out of range".to_owned(),
        DurationError::UnknownUnit { unit, .. } if unit.is_empty() => "has no unit".to_owned(),
        DurationError::UnknownUnit { unit, .. } => format!("has an unknown unit, `{unit}`"),
        _ => "is no duration".to_owned(),
    })
}

fn duration(tokens: TokenStream) -> Result<Duration, Error> {
    const UNITS: &str =
        "write a number with a unit, such as \"500ms\", \"30s\", \"5m\", \"2h45m\" or \"1d\"";
    let message = format!("`timeout` takes a duration in quotes; {UNITS}");
    let literal: LitStr = parse_all(tokens, &message)?;
    let duration = parse_duration(&literal.value())
        .map_err(|fault| Error::new(literal.span(), format!("`timeout` {fault}; {UNITS}")))?;
    if duration.is_zero() {
        let message = "a `timeout` of zero ends every call at once; leave it out for any time";
        return Err(Error::new(literal.span(), message));
    }
    Ok(duration)
}

fn path(tokens: TokenStream) -> Result<Path, Error> {
    let message = "`crate` takes the path of the crate `inngest_failure`, without quotes; write \
                   `crate = my_crate::inngest_failure`";
    parse_all(tokens, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages for these arguments.
    fn messages(args: &str) -> Vec<String> {
        let mut errors = Vec::new();
        Args::parse(args.parse().unwrap(), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn parse(args: &str) -> Args {
        let mut errors = Vec::new();
        let args = Args::parse(args.parse().unwrap(), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        args
    }

    #[test]
    fn every_argument_is_read() {
        let args = parse(
            r#"function = "checkout", app = APP, error = "E", cancelled, id = ids::UNDO, name = "n",
               retries = 20, timeout = "2h45m", concurrency = 1, crate = ::a::b, fallback,
               throttle = "10/1m", rate_limit = " 1 / 24h ", priority = -600, idempotency = "event.id",
               step = "charge-card","#,
        );
        assert!(matches!(args.function, Some(Text::Literal(text)) if text.value() == "checkout"));
        assert!(matches!(args.app, Some(Text::Const(_))));
        assert_eq!(args.retries, Some(20));
        assert_eq!(args.timeout, Some(Duration::from_secs(9900)));
        assert_eq!(args.concurrency, Some(1));
        assert_eq!(args.throttle, Some(Rate { limit: 10, period: Duration::from_secs(60) }));
        assert_eq!(args.rate_limit, Some(Rate { limit: 1, period: MAX_RATE_LIMIT }));
        assert_eq!(args.priority, Some(-600));
        assert!(
            matches!(args.idempotency, Some(Text::Literal(text)) if text.value() == "event.id")
        );
        assert!(matches!(args.step, Some(Text::Literal(text)) if text.value() == "charge-card"));
        assert!(args.krate.is_some() && args.cancelled.is_some() && args.fallback.is_some());
    }

    #[test]
    fn every_fault_is_reported_once() {
        let all = messages(r#"retry = 3, timeout = "soon", concurrency = 0, id = "", id = "x""#);
        assert_eq!(all.len(), 5, "{all:#?}");
        assert!(all[0].contains("did you mean `retries`?"), "{}", all[0]);
        assert!(all[1].contains("is no duration"), "{}", all[1]);
        assert!(all[4].contains("given twice"), "{}", all[4]);
    }

    #[test]
    fn the_known_arguments_are_listed_in_order() {
        let all = messages("zzz");
        assert!(
            all[0].ends_with(
                "(the arguments are `app`, `cancelled`, `concurrency`, `crate`, `error`, `fallback`, \
                 `function`, `id`, `idempotency`, `name`, `priority`, `rate_limit`, `retries`, \
                 `step`, `throttle`, `timeout`)"
            ),
            "{}",
            all[0]
        );
        assert!(KNOWN.is_sorted_by_key(|(name, ..)| *name));
    }

    #[test]
    fn what_was_meant_counts_as_given() {
        let mut errors = Vec::new();
        let args = Args::parse("funktion = \"checkout\"".parse().unwrap(), &mut errors);
        assert_eq!(errors.len(), 1);
        assert!(args.given("function").is_some());
    }

    #[test]
    fn a_step_is_a_text_however_it_is_misspelt() {
        assert!(matches!(parse("step = ids::CHARGE").step, Some(Text::Const(_))));
        for key in ["steps", "stp", "step_id", "undo", "undoes"] {
            let mut errors = Vec::new();
            let args = format!("function = \"checkout\", {key} = \"charge-card\"");
            let args = Args::parse(args.parse().unwrap(), &mut errors);
            assert_eq!(errors.len(), 1);
            assert!(errors[0].to_string().contains("did you mean `step`?"), "{}", errors[0]);
            assert!(args.given("step").is_some());
        }
        assert_eq!(messages("step = \" \""), ["`step` is blank; write `step = \"charge-card\"`"]);
        assert_eq!(messages(r#"step = "a", step = "b""#), ["`step` is given twice; leave one out"]);
    }

    #[test]
    fn a_missing_comma_is_named_and_both_arguments_are_read() {
        let args = [
            r#"function = "a" retries = 3"#,
            r#"function = A retries = 3"#,
            r#"retries = 3 cancelled function = "a""#,
        ];
        for args in args {
            let mut errors = Vec::new();
            let read = Args::parse(args.parse().unwrap(), &mut errors);
            assert!(errors.iter().all(|error| error.to_string() == NO_COMMA), "{errors:?}");
            assert!(!errors.is_empty() && read.function.is_some() && read.retries.is_some());
        }
        assert_eq!(messages(r#"function = "a" retries 3"#), [NO_COMMA]);
    }

    #[test]
    fn a_text_alone_counts_as_the_function() {
        let mut errors = Vec::new();
        let args = Args::parse("\"checkout\"".parse().unwrap(), &mut errors);
        assert_eq!(errors.len(), 1);
        assert!(args.given("function").is_some());
    }

    #[test]
    fn fragments_of_macro_rules_are_read() {
        let invisible = |tokens: TokenStream| {
            proc_macro2::Group::new(Delimiter::None, tokens).into_token_stream()
        };
        let (text, path) = (invisible(quote!("checkout")), invisible(quote!(ids::APP)));
        let mut errors = Vec::new();
        let args = Args::parse(quote!(function = #text, app = #path, retries = 1), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        assert!(matches!(args.function, Some(Text::Literal(_))));
        assert!(matches!(args.app, Some(Text::Const(_))));
    }
}
