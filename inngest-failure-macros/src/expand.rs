//! What the attribute writes: the function as it is, a hidden type of its name, its registration.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Error, Item, Path, ReturnType};

use crate::{
    args::{Args, Rate, Text},
    model::{HandlerFn, unraw},
    validate,
};

pub(crate) fn on_failure(args: TokenStream, item: TokenStream) -> TokenStream {
    if let Some(registration) = carried(&args) {
        return quote!(#item #registration);
    }
    let mut errors = Vec::new();
    let args = Args::parse(args, &mut errors);
    validate::args(&args, attribute(&item), &mut errors);
    let handler: HandlerFn = match syn::parse2(item.clone()) {
        Ok(handler) => handler,
        Err(error) => {
            errors.push(not_a_function(&item, error));
            let errors = compile_errors(errors);
            return quote!(#item #errors);
        }
    };
    validate::signature(&handler, &mut errors);
    if errors.is_empty() {
        return Expansion::new(&args, &handler).registered(&item);
    }
    // Where the function stands in an `impl`, or under a second attribute, only it may be repeated.
    let alone = handler.sig.receiver().is_some()
        || validate::self_type(&handler.sig).is_some()
        || handler.attrs.iter().any(|attr| validate::is_on_failure(attr.path()));
    let errors = compile_errors(errors);
    if alone {
        return quote!(#item #errors);
    }
    let unregistered = Expansion::new(&args, &handler).unregistered(&item);
    quote!(#unregistered #errors)
}

/// What the hidden type carries in an attribute of this kind, to be put after it. So the type is
/// all that the compiler refuses where there can be none, inside an `impl`.
fn carried(args: &TokenStream) -> Option<TokenStream> {
    let mut tokens = args.clone().into_iter();
    matches!(tokens.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == '@')
        .then(|| tokens.collect())
}

fn compile_errors(errors: Vec<Error>) -> TokenStream {
    errors.into_iter().map(|error| error.to_compile_error()).collect()
}

/// The attribute as a place in the user's own code, not in the expansion.
fn attribute(item: &TokenStream) -> Span {
    let first = item.clone().into_iter().next();
    first.map_or_else(Span::call_site, |token| Span::call_site().resolved_at(token.span()))
}

/// Something that is no function at all gets a message of ours, a broken function the parser's.
fn not_a_function(item: &TokenStream, error: Error) -> Error {
    match syn::parse2(item.clone()) {
        Ok(Item::Fn(_) | Item::Verbatim(_)) => error,
        Err(_) if item.clone().into_iter().any(|token| token.to_string() == "fn") => error,
        Ok(_) | Err(_) => {
            let mut tokens = item.clone().into_iter().peekable();
            // The item's own attributes.
            while tokens.next_if(|token| token.to_string() == "#").is_some() {
                tokens.next();
            }
            let first = tokens.next().map_or_else(Span::call_site, |token| token.span());
            Error::new(first, "`#[on_failure]` goes on a function; write `async fn`")
        }
    }
}

struct Expansion<'a> {
    args: &'a Args,
    handler: &'a HandlerFn,
    cfgs: Vec<TokenStream>,
}

/// The hidden module of the runtime crate, as the registration calls it: a short name can be spelt
/// where a fault is to be reported.
const PRIVATE: &str = "__on_failure";

impl<'a> Expansion<'a> {
    fn new(args: &'a Args, handler: &'a HandlerFn) -> Self {
        Self { args, handler, cfgs: handler.cfgs() }
    }

    /// The function and its registration.
    fn registered(&self, item: &TokenStream) -> TokenStream {
        let cfgs = &self.cfgs;
        let name = &self.handler.sig.ident;
        let import = self.import();
        let checks = self.checks();
        let registration = self.registration();
        let run = self.run();
        let hidden_type = self.hidden_type(quote! {
            #(#cfgs)*
            #[allow(
                deprecated,
                unreachable_code,
                unused_qualifications,
                clippy::all,
                clippy::pedantic
            )]
            const _: () = {
                #import
                #checks
                static __ON_FAILURE: __on_failure::Registration = #registration;

                impl __on_failure::Handler for #name {
                    fn registration() -> &'static __on_failure::Registration {
                        &__ON_FAILURE
                    }
                }

                __on_failure::inventory::submit! { __on_failure::Entry(&__ON_FAILURE) }

                #run
            };
        });
        quote!(#item #hidden_type)
    }

    /// The function, and what keeps `handlers!` from reporting the same fault again.
    fn unregistered(&self, item: &TokenStream) -> TokenStream {
        let cfgs = &self.cfgs;
        let name = &self.handler.sig.ident;
        let import = self.import();
        let hidden_type = self.hidden_type(quote! {
            #(#cfgs)*
            const _: () = {
                #import
                impl __on_failure::Handler for #name {
                    fn registration() -> &'static __on_failure::Registration {
                        ::core::unreachable!()
                    }
                }
            };
        });
        quote!(#item #hidden_type)
    }

    fn krate(&self) -> Path {
        self.args.krate.clone().unwrap_or_else(|| syn::parse_quote!(::inngest_failure))
    }

    /// The one mention of the hidden module, so that a wrong `crate` is one fault.
    fn import(&self) -> TokenStream {
        let krate = &self.krate();
        let last = ends(krate).1;
        let private = Ident::new(PRIVATE, last);
        quote_spanned!(last=> use #krate::__private as #private;)
    }

    /// A type of the function's own name and visibility, which is imported with it: by this name
    /// `handlers!` finds the registration.
    fn hidden_type(&self, registration: TokenStream) -> TokenStream {
        let HandlerFn { vis, sig, .. } = self.handler;
        let cfgs = &self.cfgs;
        let name = &sig.ident;
        let krate = self.krate();
        let on_failure = Ident::new("on_failure", ends(&krate).1);
        let carry = quote!(#[#krate::#on_failure(@ #registration)]);
        let hidden = quote_spanned!(name.span()=> #vis enum #name {});
        quote! {
            #(#cfgs)*
            #[doc(hidden)]
            #[allow(
                dead_code,
                non_camel_case_types,
                missing_copy_implementations,
                missing_debug_implementations,
                unreachable_pub,
                clippy::all,
                clippy::pedantic
            )]
            #carry
            #hidden
        }
    }

    /// The texts, each with the name of its argument.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &Text)> {
        let args = self.args;
        [
            ("function", &args.function),
            ("app", &args.app),
            ("error", &args.error),
            ("id", &args.id),
            ("idempotency", &args.idempotency),
            ("name", &args.name),
            ("step", &args.step),
        ]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text.as_ref()?)))
    }

    /// What is not known of a constant before the compiler evaluates it, and of an expression.
    fn checks(&self) -> TokenStream {
        self.texts()
            .filter_map(|(name, text)| {
                let check = match (name, text) {
                    ("idempotency", _) => "check_expression",
                    ("app", Text::Const(_)) => "check_app",
                    ("function", Text::Const(_)) if self.args.step.is_some() => "check_function",
                    (_, Text::Const(_)) => "check_text",
                    (_, Text::Literal(_)) => return None,
                };
                let check = spelt_at(text, [check]);
                // Its type is checked by the same call as below, for one fault each.
                let argument = Group::new(Delimiter::Parenthesis, typed(text));
                let argument = group_at(argument, ends(text).1);
                Some(quote!(const _: () = #check #argument;))
            })
            .collect()
    }

    fn registration(&self) -> TokenStream {
        let Self { args, handler, .. } = self;
        let name = unraw(&handler.sig.ident);
        let kebab_name = handler.kebab_name();
        let description = handler.description();
        let kind = match handler.sig.asyncness {
            Some(_) => quote!(Async),
            None => quote!(Blocking),
        };
        let texts = self.texts().map(|(setter, text)| {
            let setter = format_ident!("{setter}");
            let text = typed(text);
            quote!(.#setter(#text))
        });
        let cancelled = args.cancelled.map(|_| quote!(.cancelled()));
        let retries = args.retries.map(|retries| quote!(.retries(#retries)));
        let timeout = args.timeout.map(|timeout| {
            let (seconds, nanoseconds) = (timeout.as_secs(), timeout.subsec_nanos());
            quote!(.timeout(#seconds, #nanoseconds))
        });
        let concurrency = args.concurrency.map(|limit| quote!(.concurrency(#limit)));
        let priority = args.priority.map(|seconds| quote!(.priority(#seconds)));
        let rate = |setter: &str, rate: Option<Rate>| {
            let Rate { limit, period } = rate?;
            let (setter, seconds) = (format_ident!("{setter}"), period.as_secs());
            Some(quote!(.#setter(#limit, #seconds)))
        };
        let throttle = rate("throttle", args.throttle);
        let rate_limit = rate("rate_limit", args.rate_limit);
        quote! {
            __on_failure::Registration::new(
                ::core::concat!(::core::module_path!(), "::", #name),
                #kebab_name,
                (::core::file!(), ::core::line!()),
                #description,
                |__needs| ::core::mem::drop(__on_failure_run(__on_failure::Arguments::Needs(__needs))),
                __on_failure::Call::#kind(|__cx| {
                    __on_failure_run(__on_failure::Arguments::Values(__cx))
                }),
            )
            #(#texts)* #cancelled #retries #timeout #concurrency #throttle #rate_limit #priority
        }
    }

    /// The function that goes through the arguments, to ask what they need or to run the handler
    /// with them. Each is taken once, and its type is left to inference, so that a type with a fault
    /// is reported once.
    fn run(&self) -> TokenStream {
        let handler = self.handler;
        let name = &handler.sig.ident;
        // A local variable does not hide a function of its name.
        let local = Span::mixed_site();
        let args: Vec<(TokenStream, TokenStream)> = handler
            .params()
            .enumerate()
            .map(|(i, param)| {
                let arg = format_ident!("__arg{i}", span = local);
                let cfgs = &param.cfgs;
                let function = spelt_at(param.ty, ["Arguments", "take"]);
                let take = quote_spanned! {local=>
                    #(#cfgs)*
                    let #arg = {
                        // Called by its name, it would be the whole call that is reported.
                        let __take = #function;
                        __take(&mut __arguments)
                    };
                };
                (take, quote!(#(#cfgs)* #arg))
            })
            .collect();
        let takes = args.iter().map(|(take, _)| take);
        let waits = handler.params().zip(&args).enumerate().map(|(i, (param, _))| {
            let arg = format_ident!("__arg{i}", span = local);
            let cfgs = &param.cfgs;
            quote_spanned! {local=>
                #(#cfgs)*
                let #arg = match #arg.await {
                    ::core::result::Result::Ok(value) => value,
                    ::core::result::Result::Err(error) => {
                        return ::core::result::Result::Err(error);
                    }
                };
            }
        });
        let args = args.iter().map(|(_, arg)| arg);
        let into_output = match &handler.sig.output {
            ReturnType::Default => spelt_at(name, ["HandlerOutput", "into_output"]),
            ReturnType::Type(_, ty) => spelt_at(ty, ["HandlerOutput", "into_output"]),
        };
        let (value, body) = match handler.sig.asyncness {
            Some(_) => (
                quote!(Value),
                quote_spanned! {local=>
                    let __output = #name(#(#args),*).await;
                    let __into_output = #into_output;
                    __into_output(__output)
                },
            ),
            None => (
                quote!(BlockingCall),
                quote_spanned! {local=>
                    let __call: __on_failure::BlockingCall = ::std::boxed::Box::new(move || {
                        let __output = #name(#(#args),*);
                        let __into_output = #into_output;
                        __into_output(__output)
                    });
                    ::core::result::Result::Ok(__call)
                },
            ),
        };
        let future = Group::new(Delimiter::Brace, quote!(#(#waits)* #body));
        let future = group_at(future, name.span());
        let boxed = spelt_at(name, ["boxed"]);
        let future = quote_spanned!(name.span()=> #boxed(async move #future));
        quote_spanned! {local=>
            fn __on_failure_run(
                mut __arguments: __on_failure::Arguments<'_>,
            ) -> __on_failure::BoxFuture<
                '_,
                ::core::result::Result<__on_failure::#value, __on_failure::CallError>,
            > {
                let _ = &mut __arguments;
                #(#takes)*
                #future
            }
        }
    }
}

/// A text, checked for its type where the user wrote it.
fn typed(text: &Text) -> TokenStream {
    match text {
        Text::Literal(literal) => quote!(#literal),
        Text::Const(path) => {
            let function = spelt_at(path, ["text"]);
            let argument = Group::new(Delimiter::Parenthesis, quote!(#path));
            let argument = group_at(argument, ends(path).1);
            quote!(#function #argument)
        }
    }
}

/// The path of something hidden, which the compiler takes to stand where `tokens` do.
fn spelt_at<const N: usize>(tokens: impl ToTokens, path: [&str; N]) -> TokenStream {
    let (first, last) = ends(tokens);
    let private = Ident::new(PRIVATE, first);
    let path = path.map(|name| Ident::new(name, last));
    quote_spanned!(last=> #private #(::#path)*)
}

/// The first and the last token's places.
fn ends(tokens: impl ToTokens) -> (Span, Span) {
    let mut tokens = tokens.into_token_stream().into_iter();
    let first = tokens.next().map_or_else(Span::call_site, |token| token.span());
    (first, tokens.last().map_or(first, |token| token.span()))
}

fn group_at(mut group: Group, span: Span) -> Group {
    group.set_span(span);
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the attribute writes, without white space.
    fn expanded(args: &str) -> String {
        let item = quote!(
            async fn undo() {}
        );
        let expanded = on_failure(args.parse().unwrap(), item).to_string();
        assert!(!expanded.contains("compile_error"), "{expanded}");
        expanded.replace(char::is_whitespace, "")
    }

    fn check(args: &str, written: &[&str], not_written: &[&str]) {
        let expanded = expanded(args);
        for part in written {
            assert!(expanded.contains(part), "{part}: {expanded}");
        }
        for part in not_written {
            assert!(!expanded.contains(part), "{part}: {expanded}");
        }
    }

    #[test]
    fn a_constant_is_checked_as_what_its_argument_takes() {
        check(r#"function = "a", step = "b""#, &[r#".function("a").step("b")"#], &["check_"]);
        check(
            "function = ids::CHECKOUT, step = ids::CHARGE",
            &[
                "check_function(__on_failure::text(ids::CHECKOUT))",
                "check_text(__on_failure::text(ids::CHARGE))",
                ".step(__on_failure::text(ids::CHARGE))",
            ],
            &[],
        );
        // Without `step` it may be a pattern.
        check(
            "function = ids::ALL",
            &["check_text(__on_failure::text(ids::ALL))"],
            &["check_function"],
        );
        check("fallback, app = ids::SHOP", &["check_app(__on_failure::text(ids::SHOP))"], &[]);
    }
}
