//! What the attribute writes: the function as it is, a hidden type of its name, its registration.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Error, Path, Type, spanned::Spanned};

use crate::{
    args::Args,
    model::{HandlerFn, unraw},
    validate,
};

pub(crate) fn on_failure(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Vec::new();
    let args = Args::parse(args, &mut errors);
    validate::args(&args, &mut errors);
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
        || handler.attrs.iter().any(|attr| validate::is_on_failure(attr.path()));
    let errors = compile_errors(errors);
    if alone {
        return quote!(#item #errors);
    }
    let unregistered = Expansion::new(&args, &handler).unregistered(&item);
    quote!(#unregistered #errors)
}

fn compile_errors(errors: Vec<Error>) -> TokenStream {
    errors.into_iter().map(|error| error.to_compile_error()).collect()
}

/// Something that is no function at all gets a message of ours, a broken function the parser's.
fn not_a_function(item: &TokenStream, error: Error) -> Error {
    let is_function = item.clone().into_iter().any(|token| token.to_string() == "fn");
    if is_function {
        return error;
    }
    Error::new_spanned(item, "`#[on_failure]` goes on a function; write `async fn`")
}

struct Expansion<'a> {
    args: &'a Args,
    handler: &'a HandlerFn,
    cfgs: Vec<TokenStream>,
    /// The hidden module of the runtime crate.
    private: TokenStream,
}

impl<'a> Expansion<'a> {
    fn new(args: &'a Args, handler: &'a HandlerFn) -> Self {
        let default: Path = syn::parse_quote!(::inngest_failure);
        let krate = args.krate.as_ref().unwrap_or(&default);
        Self { args, handler, cfgs: handler.cfgs(), private: quote!(#krate::__private) }
    }

    /// The function and its registration.
    fn registered(&self, item: &TokenStream) -> TokenStream {
        let Self { private, cfgs, .. } = self;
        let name = &self.handler.sig.ident;
        let hidden_type = self.hidden_type();
        let registration = self.registration();
        let needs = self.needs();
        let call = self.call();
        quote! {
            #item
            #hidden_type

            #(#cfgs)*
            #[allow(deprecated, unused_qualifications, clippy::all, clippy::pedantic)]
            const _: () = {
                static __ON_FAILURE: #private::Registration = #registration;

                impl #private::Handler for #name {
                    fn registration() -> &'static #private::Registration {
                        &__ON_FAILURE
                    }
                }

                #private::inventory::submit! { #private::Entry(&__ON_FAILURE) }

                #needs
                #call
            };
        }
    }

    /// The function, and what keeps `handlers!` from reporting the same fault again.
    fn unregistered(&self, item: &TokenStream) -> TokenStream {
        let Self { private, cfgs, .. } = self;
        let name = &self.handler.sig.ident;
        let hidden_type = self.hidden_type();
        quote! {
            #item
            #hidden_type

            #(#cfgs)*
            const _: () = {
                impl #private::Handler for #name {
                    fn registration() -> &'static #private::Registration {
                        ::core::unreachable!()
                    }
                }
            };
        }
    }

    /// A type of the function's own name and visibility, which is imported with it: by this name
    /// `handlers!` finds the registration.
    fn hidden_type(&self) -> TokenStream {
        let HandlerFn { vis, sig, .. } = self.handler;
        let cfgs = &self.cfgs;
        let name = &sig.ident;
        quote! {
            #(#cfgs)*
            #[doc(hidden)]
            #[allow(
                dead_code,
                non_camel_case_types,
                missing_debug_implementations,
                unreachable_pub,
                clippy::all,
                clippy::pedantic
            )]
            #vis enum #name {}
        }
    }

    fn registration(&self) -> TokenStream {
        let Self { private, args, handler, .. } = self;
        let name = unraw(&handler.sig.ident);
        let kebab_name = handler.kebab_name();
        let description = handler.description();
        let kind = match handler.sig.asyncness {
            Some(_) => quote!(Async),
            None => quote!(Blocking),
        };
        let texts = [
            ("function", &args.function),
            ("app", &args.app),
            ("error", &args.error),
            ("id", &args.id),
            ("name", &args.name),
        ];
        let texts = texts.into_iter().filter_map(|(setter, text)| {
            let text = text.as_ref()?;
            let setter = syn::Ident::new(setter, at(text.span()));
            Some(quote_spanned!(at(text.span())=> .#setter(#text)))
        });
        let cancelled = args.cancelled.map(|_| quote!(.cancelled()));
        let retries = args.retries.map(|retries| quote!(.retries(#retries)));
        let timeout = args.timeout.map(|timeout| {
            let (seconds, nanoseconds) = (timeout.as_secs(), timeout.subsec_nanos());
            quote!(.timeout(#seconds, #nanoseconds))
        });
        let concurrency = args.concurrency.map(|limit| quote!(.concurrency(#limit)));
        quote! {
            #private::Registration::new(
                ::core::concat!(::core::module_path!(), "::", #name),
                #kebab_name,
                (::core::file!(), ::core::line!()),
                #description,
                __on_failure_needs,
                #private::Call::#kind(__on_failure_call),
            )
            #(#texts)* #cancelled #retries #timeout #concurrency
        }
    }

    fn needs(&self) -> TokenStream {
        let private = &self.private;
        let needs = self.handler.params().map(|param| {
            let cfgs = &param.cfgs;
            let extractor = self.extractor(param.ty);
            quote_spanned!(at(param.ty.span())=> #(#cfgs)* #extractor::needs(__needs);)
        });
        quote! {
            fn __on_failure_needs(__needs: &mut #private::Needs) {
                let _ = &__needs;
                #(#needs)*
            }
        }
    }

    fn call(&self) -> TokenStream {
        let Self { private, handler, .. } = self;
        let name = &handler.sig.ident;
        let (lets, args): (Vec<_>, Vec<_>) = handler
            .params()
            .enumerate()
            .map(|(i, param)| {
                let arg = format_ident!("__arg{i}", span = Span::call_site());
                let cfgs = &param.cfgs;
                let extractor = self.extractor(param.ty);
                let take = quote_spanned! {at(param.ty.span())=>
                    #(#cfgs)*
                    let #arg = match #extractor::from_failure(__cx).await {
                        ::core::result::Result::Ok(value) => value,
                        ::core::result::Result::Err(rejection) => {
                            return ::core::result::Result::Err(#private::rejected(rejection));
                        }
                    };
                };
                (take, quote!(#(#cfgs)* #arg))
            })
            .unzip();
        let returned = match &handler.sig.output {
            syn::ReturnType::Default => name.span(),
            syn::ReturnType::Type(_, ty) => ty.span(),
        };
        let into_output = quote_spanned!(at(returned)=> #private::HandlerOutput::into_output);
        let boxed = quote_spanned!(at(name.span())=> #private::boxed);
        let (value, body) = match handler.sig.asyncness {
            Some(_) => (
                quote!(#private::Value),
                quote! {
                    let __output = #name(#(#args),*).await;
                    #into_output(__output)
                },
            ),
            None => (
                quote!(#private::BlockingCall),
                quote! {
                    let __call: #private::BlockingCall = ::std::boxed::Box::new(move || {
                        let __output = #name(#(#args),*);
                        #into_output(__output)
                    });
                    ::core::result::Result::Ok(__call)
                },
            ),
        };
        quote! {
            fn __on_failure_call<'__cx>(
                __cx: &'__cx #private::Context,
            ) -> #private::BoxFuture<'__cx, ::core::result::Result<#value, #private::CallError>> {
                #boxed(async move {
                    let _ = __cx;
                    #(#lets)*
                    #body
                })
            }
        }
    }

    /// The extractor of an argument's type, spelt so that a fault is reported at the type.
    fn extractor(&self, ty: &Type) -> TokenStream {
        let private = &self.private;
        quote_spanned!(at(ty.span())=> <#ty as #private::FromFailure>)
    }
}

/// This place in the source, but the names of the expansion.
fn at(span: Span) -> Span {
    Span::call_site().located_at(span)
}
