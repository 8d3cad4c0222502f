//! The rules: which arguments go together, and what a handler's signature may be.

use proc_macro2::Span;
use quote::ToTokens;
use syn::{
    Error, FnArg, Generics, Lifetime, ParenthesizedGenericArguments, Path, Receiver, Safety,
    Signature, Type, TypeFnPtr, TypeImplTrait, TypeReference,
    visit::{self, Visit},
};

use crate::{
    args::{Args, Text},
    model::HandlerFn,
};

/// Everything that is wrong with the arguments of the `attribute` taken together.
pub(crate) fn args(args: &Args, attribute: Span, errors: &mut Vec<Error>) {
    let mut refuse = |span: Span, message: &str| errors.push(Error::new(span, message));
    let step = args.given("step");
    match (args.given("function"), args.given("fallback"), step) {
        (None, None, None) => refuse(
            attribute,
            "`#[on_failure]` names no function; write `function = \"checkout\"`, or `fallback` to take \
             what no other handler takes",
        ),
        (None, None, Some(step)) => refuse(
            step,
            "`step` belongs to a function, and none is named; write `function = \"checkout\"` beside it",
        ),
        (Some(_), Some(fallback), None) => refuse(
            fallback,
            "`fallback` and `function` exclude each other; leave out `fallback` to handle the \
             function's failures, or `function` to take what no other handler takes",
        ),
        _ => {}
    }
    if let (Some(_), Some(cancelled)) = (args.given("error"), args.given("cancelled")) {
        refuse(
            cancelled,
            "`cancelled` and `error` exclude each other, for a cancelled run has no error; write a \
             second handler for cancelled runs",
        );
    }
    if let Some(Text::Literal(app)) = &args.app
        && app.value().contains('*')
    {
        refuse(app.span(), "`app` takes no `*`; leave `app` out, or write a handler for each app");
    }
    if step.is_some() {
        beside_step(args, refuse);
    }
}

/// The arguments that a handler can't have beside `step`, each with the reason.
const NOT_BESIDE_STEP: [(&str, &str); 7] = [
    ("concurrency", OF_THE_ROLLBACK),
    ("id", OF_THE_STEP),
    ("idempotency", DROPPED),
    ("name", OF_THE_STEP),
    ("priority", OF_THE_ROLLBACK),
    ("rate_limit", DROPPED),
    ("throttle", OF_THE_ROLLBACK),
];

const OF_THE_ROLLBACK: &str = "all undos of a function run as one rollback";
const OF_THE_STEP: &str = "an undo is named after its step";
const DROPPED: &str = "a run that is dropped undoes nothing";

/// What is wrong with a handler that undoes one step: it is a part of its function's rollback.
fn beside_step(args: &Args, mut refuse: impl FnMut(Span, &str)) {
    if let Some(Text::Literal(function)) = &args.function
        && function.value().contains('*')
    {
        refuse(
            function.span(),
            "`function` takes no `*` beside `step`; write a handler for each function",
        );
    }
    if let Some(fallback) = args.given("fallback") {
        let remedy = match args.given("function") {
            Some(_) => "leave `fallback` out",
            None => "write `function = \"checkout\"` instead",
        };
        let message = format!(
            "`fallback` and `step` exclude each other, for a step belongs to one function; {remedy}"
        );
        refuse(fallback, &message);
    }
    for (key, reason) in NOT_BESIDE_STEP {
        if let Some(span) = args.given(key) {
            let message =
                format!("`{key}` and `step` exclude each other, for {reason}; leave `{key}` out");
            refuse(span, &message);
        }
    }
}

/// Everything in the signature that Inngest could not call.
pub(crate) fn signature(handler: &HandlerFn, errors: &mut Vec<Error>) {
    let sig = &handler.sig;
    let mut refuse = |tokens: &dyn ToTokens, message: &str| {
        errors.push(Error::new_spanned(tokens.to_token_stream(), message));
    };

    if let Some(token) = &sig.constness {
        refuse(
            token,
            "a handler can't be `const`; it runs when a failure comes: leave `const` out",
        );
    }
    if let Safety::Unsafe(token) = &sig.safety {
        refuse(
            token,
            "a handler can't be `unsafe`, for Inngest can keep no promise; leave `unsafe` out and put \
             an `unsafe` block inside",
        );
    }
    if let Some(abi) = &sig.abi {
        refuse(abi, "a handler can't be `extern`; leave it out");
    }
    if !sig.generics.params.is_empty() {
        let message = if sig.generics.lifetimes().count() == sig.generics.params.len() {
            "a handler can't have lifetimes, for it owns its arguments; take owned types"
        } else {
            "a handler can't be generic, for nothing says which types to call it with; write the types \
             out, and call a generic function from here"
        };
        refuse(&sig.generics.params, message);
    } else if let Some(clause) = &sig.generics.where_clause {
        refuse(clause, "a handler can't have a `where` clause; leave it out");
    }
    if let Some(variadic) = &sig.variadic {
        refuse(variadic, "a handler can't be variadic; name the arguments");
    }
    for input in &sig.inputs {
        match input {
            FnArg::Receiver(receiver) => refuse(
                receiver,
                "a handler can't be a method, for there is no `self` to call it on; write a free \
                 function and take the value as `State<..>`",
            ),
            FnArg::Typed(typed) => {
                if let Some((fault, message)) = borrowed(&typed.ty, &sig.generics) {
                    refuse(&fault, &message);
                }
            }
        }
    }
    if let Some(place) = self_type(sig) {
        refuse(
            &syn::Ident::new("Self", place),
            "a handler can't be an associated function, for nothing can be registered inside an `impl`; \
             move the function out, and write the type for `Self`",
        );
    }
    for attr in &handler.attrs {
        if is_on_failure(attr.path()) {
            refuse(
                attr,
                "a function takes one `#[on_failure]`; write a second function that calls this one, or \
                 one `function` pattern with `*` for both",
            );
        }
    }
}

pub(crate) fn is_on_failure(path: &Path) -> bool {
    path.segments.last().is_some_and(|segment| segment.ident == "on_failure")
}

/// Where the types of the signature say `Self`, if they do: only a function inside an `impl` can.
pub(crate) fn self_type(sig: &Signature) -> Option<Span> {
    struct Find(Option<Span>);

    impl<'ast> Visit<'ast> for Find {
        fn visit_path(&mut self, path: &'ast Path) {
            match path.segments.first() {
                Some(first) if first.ident == "Self" => {
                    self.0.get_or_insert(first.ident.span());
                }
                _ => visit::visit_path(self, path),
            }
        }

        fn visit_receiver(&mut self, _: &'ast Receiver) {}
    }

    let mut find = Find(None);
    find.visit_signature(sig);
    find.0
}

/// The part of an argument's type that is not owned or not known.
fn borrowed(ty: &Type, declared: &Generics) -> Option<(proc_macro2::TokenStream, String)> {
    struct Find<'a> {
        declared: &'a Generics,
        found: Option<(proc_macro2::TokenStream, String)>,
    }

    impl Find<'_> {
        fn found(&mut self, tokens: &dyn ToTokens, message: &str) {
            self.found.get_or_insert_with(|| (tokens.to_token_stream(), message.to_owned()));
        }
    }

    const BORROWED: &str = "a handler owns its arguments; take an owned type, such as `Failure<Order>` \
                            or `State<Shop>`";

    impl<'ast> Visit<'ast> for Find<'_> {
        fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
            match &reference.lifetime {
                None => match extractor(&reference.elem, self.declared) {
                    Some(name) => self.found(
                        reference,
                        &format!("a handler owns its arguments; take `{name}` itself, not a reference to it"),
                    ),
                    None => self.found(reference, BORROWED),
                },
                Some(_) => visit::visit_type_reference(self, reference),
            }
        }

        fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
            // One that is declared is refused where it is declared.
            let declared = self.declared.lifetimes().any(|param| param.lifetime == *lifetime);
            if lifetime.ident != "static" && !declared {
                self.found(lifetime, BORROWED);
            }
        }

        fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
            self.found(
                ty,
                "an argument's type must be written out, for nothing says which one to call the \
                 handler with; take an extractor such as `Failure<Order>`",
            );
        }

        // Lifetimes in these are their own.
        fn visit_type_fn_ptr(&mut self, _: &'ast TypeFnPtr) {}
        fn visit_parenthesized_generic_arguments(
            &mut self,
            _: &'ast ParenthesizedGenericArguments,
        ) {
        }
    }

    /// The name of a type that may be an extractor, unlike `str` and `[u8]`.
    fn extractor(ty: &Type, declared: &Generics) -> Option<String> {
        let Type::Path(path) = ty else { return None };
        let ident = &path.path.segments.last()?.ident;
        let is_declared = declared.type_params().any(|param| param.ident == *ident);
        let name = ident.to_string();
        (name.starts_with(char::is_uppercase) && !is_declared).then_some(name)
    }

    let mut find = Find { declared, found: None };
    find.visit_type(ty);
    find.found
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;
    use quote::quote;

    use super::*;

    /// The messages for these arguments, taken together.
    fn messages(tokens: TokenStream) -> Vec<String> {
        let mut errors = Vec::new();
        let read = Args::parse(tokens, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        args(&read, Span::call_site(), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_undo_is_of_one_function() {
        assert_eq!(messages(quote!(function = "checkout", step = "charge-card")), [""; 0]);
        assert_eq!(
            messages(quote!(step = "charge-card")),
            [
                "`step` belongs to a function, and none is named; write `function = \"checkout\"` beside it"
            ]
        );
        for function in ["*", "checkout-*"] {
            assert_eq!(
                messages(quote!(function = #function, step = "charge-card")),
                ["`function` takes no `*` beside `step`; write a handler for each function"]
            );
        }
        // What a constant says is for the compiler to check.
        assert_eq!(messages(quote!(function = CHECKOUT, step = CHARGE)), [""; 0]);
    }

    #[test]
    fn a_fallback_beside_step_is_one_fault_with_or_without_a_function() {
        let fault = "`fallback` and `step` exclude each other, for a step belongs to one function";
        assert_eq!(
            messages(quote!(fallback, step = "charge-card")),
            [format!("{fault}; write `function = \"checkout\"` instead")]
        );
        assert_eq!(
            messages(quote!(function = "checkout", fallback, step = "charge-card")),
            [format!("{fault}; leave `fallback` out")]
        );
    }

    #[test]
    fn what_an_undo_has_of_its_own_goes_with_step() {
        assert_eq!(
            messages(quote! {
                function = "checkout", app = "shop", step = "charge-card", cancelled, retries = 0, timeout = "30s",
                crate = ::inngest_failure
            }),
            [""; 0]
        );
        assert_eq!(
            messages(quote!(function = "checkout", step = "charge-card", error = "CardError")),
            [""; 0]
        );
    }

    #[test]
    fn what_is_the_rollbacks_is_refused_beside_step_all_at_once() {
        assert_eq!(
            messages(quote! {
                throttle = "10/1m", rate_limit = "1/5m", priority = 100, name = "refund", idempotency = "event.id",
                id = "refund", concurrency = 1, function = "checkout*", step = "charge-card"
            }),
            [
                "`function` takes no `*` beside `step`; write a handler for each function",
                "`concurrency` and `step` exclude each other, for all undos of a function run as one rollback; \
                 leave `concurrency` out",
                "`id` and `step` exclude each other, for an undo is named after its step; leave `id` out",
                "`idempotency` and `step` exclude each other, for a run that is dropped undoes nothing; \
                 leave `idempotency` out",
                "`name` and `step` exclude each other, for an undo is named after its step; leave `name` out",
                "`priority` and `step` exclude each other, for all undos of a function run as one rollback; \
                 leave `priority` out",
                "`rate_limit` and `step` exclude each other, for a run that is dropped undoes nothing; \
                 leave `rate_limit` out",
                "`throttle` and `step` exclude each other, for all undos of a function run as one rollback; \
                 leave `throttle` out",
            ]
        );
    }
}
