//! The function under the attribute.

use heck::ToKebabCase;
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, Lit, Meta, Signature, Token, Type, Visibility,
    ext::IdentExt,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    token::Brace,
};

/// A function whose body is left alone: what is wrong in it is for the compiler to say.
pub(crate) struct HandlerFn {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
}

/// An argument of the function.
pub(crate) struct Param<'a> {
    pub(crate) ty: &'a Type,
    /// Its `#[cfg]`s.
    pub(crate) cfgs: Vec<TokenStream>,
}

impl Parse for HandlerFn {
    /// Reads
    ///
    /// - attributes, visibility, `async fn name(..) -> .. {`, and whatever is in the braces
    fn parse(input: ParseStream<'_>) -> Result<Self, Error> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let sig = input.parse()?;
        if input.peek(Token![;]) {
            let message = "a handler has a body; put `#[on_failure]` on the function itself, not on a \
                           declaration";
            return Err(input.error(message));
        }
        if !input.peek(Brace) {
            return Err(input.error("expected the function's body"));
        }
        let _body: TokenTree = input.parse()?;
        Ok(Self { attrs, vis, sig })
    }
}

impl HandlerFn {
    pub(crate) fn params(&self) -> impl Iterator<Item = Param<'_>> {
        self.sig.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(typed) => Some(Param { ty: &typed.ty, cfgs: cfgs(&typed.attrs) }),
            FnArg::Receiver(_) => None,
        })
    }

    /// What has to be configured out together with the function.
    pub(crate) fn cfgs(&self) -> Vec<TokenStream> {
        cfgs(&self.attrs)
    }

    /// The doc comment, without the space after the slashes.
    pub(crate) fn description(&self) -> String {
        let lines: Vec<String> = self.attrs.iter().filter_map(doc_line).collect();
        lines.join("\n").trim().to_owned()
    }

    pub(crate) fn kebab_name(&self) -> String {
        unraw(&self.sig.ident).to_kebab_case()
    }
}

pub(crate) fn unraw(ident: &Ident) -> String {
    ident.unraw().to_string()
}

fn doc_line(attr: &Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attr.meta else { return None };
    if !meta.path.is_ident("doc") {
        return None;
    }
    let mut value = &meta.value;
    // A fragment of `macro_rules!`.
    while let Expr::Group(group) = value {
        value = &group.expr;
    }
    let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = value else { return None };
    let line = line.value();
    Some(line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
}

/// The `cfg`s among the attributes, also those inside a `cfg_attr`.
fn cfgs(attrs: &[Attribute]) -> Vec<TokenStream> {
    attrs
        .iter()
        .filter_map(|attr| {
            if attr.path().is_ident("cfg") {
                return Some(attr.to_token_stream());
            }
            if !attr.path().is_ident("cfg_attr") {
                return None;
            }
            let parts =
                attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
            let mut parts = parts.into_iter();
            let condition = parts.next()?;
            let cfgs: Vec<Meta> = parts.filter(|part| part.path().is_ident("cfg")).collect();
            (!cfgs.is_empty()).then(|| quote!(#[cfg_attr(#condition, #(#cfgs),*)]))
        })
        .collect()
}
