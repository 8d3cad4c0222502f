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
    match (args.given("function"), args.given("fallback")) {
        (None, None) => refuse(
            attribute,
            "`#[on_failure]` names no function; write `function = \"checkout\"`, or `fallback` to take \
             what no other handler takes",
        ),
        (Some(_), Some(fallback)) => refuse(
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
