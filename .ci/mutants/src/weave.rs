//! Puts mutants into a source file, each behind a switch that the tests' environment
//! throws (mutant schemata: Untch, Offutt, Harrold, ISSTA 1993). `a + b` becomes
//! `(if crate::__on(7) { a - b } else { a + b })`.
//!
//! What is evaluated by the compiler has no switch: constants, `const fn`, and what an
//! `impl Trait` stands for. Those mutants are left out here and built one by one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};
use syn::punctuated::Pair;
use syn::spanned::Spanned as _;
use syn::visit::Visit;
use syn::visit_mut::{self, VisitMut};
use syn::{BinOp, Block, Expr, Signature, UnOp, parse_quote};

use crate::list::{Genre, Mutant, Place};

/// The switchboard, for the crate's root: which mutant is on, and, with none on, which
/// of them a test comes by.
pub const SWITCHBOARD: &str = r#"
#[doc(hidden)]
pub(crate) fn __on(mutant: usize) -> bool {
    use std::sync::{Mutex, OnceLock};
    static ON: OnceLock<usize> = OnceLock::new();
    static SEEN: Mutex<std::collections::BTreeSet<usize>> = Mutex::new(std::collections::BTreeSet::new());
    let on = *ON.get_or_init(|| {
        std::env::var("MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
    });
    if on == 0
        && let Ok(path) = std::env::var("MUTANTS_SEEN")
        && SEEN.lock().is_ok_and(|mut seen| seen.insert(mutant))
    {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{mutant}")).expect("the list of mutants seen");
    }
    on == mutant
}
"#;

/// A file with its mutants in it.
pub struct Woven {
    /// The file.
    pub source: String,
    /// The numbers of those that are in it.
    pub numbers: BTreeSet<usize>,
}

/// Puts `mutants` of one file into it.
pub fn weave(source: &str, mutants: &[(usize, &Mutant)]) -> Result<Woven> {
    let mut file = syn::parse_file(source).context("cannot parse it")?;
    let mut places = BTreeMap::<_, Vec<_>>::new();
    for (number, mutant) in mutants {
        let impl_trait =
            mutant.function.as_ref().is_some_and(|function| function.return_type.contains("impl "));
        if mutant.genre == Genre::FnValue && impl_trait {
            continue;
        }
        let replacement = mutant.replacement.parse::<TokenStream>();
        let replacement =
            replacement.map_err(|error| anyhow::anyhow!("{}: {error}", mutant.name))?;
        places.entry((mutant.span.start, mutant.genre)).or_default().push((*number, replacement));
    }
    let mut weaver = Weaver { places, numbers: BTreeSet::new() };
    weaver.visit_file_mut(&mut file);
    Ok(Woven { source: file.into_token_stream().to_string(), numbers: weaver.numbers })
}

struct Weaver {
    places: BTreeMap<(Place, Genre), Vec<(usize, TokenStream)>>,
    numbers: BTreeSet<usize>,
}

type Here = Vec<(usize, TokenStream)>;

impl Weaver {
    fn at(&mut self, span: proc_macro2::Span, genre: Genre) -> Here {
        let here = self.places.remove(&(span.start().into(), genre)).unwrap_or_default();
        self.numbers.extend(here.iter().map(|(number, _)| *number));
        here
    }

    fn function(&mut self, sig: &Signature, block: &mut Block) {
        if sig.constness.is_some() {
            return;
        }
        let first = block.stmts.first().map(|first| first.span());
        let here = first.map(|span| self.at(span, Genre::FnValue)).unwrap_or_default();
        self.visit_block_mut(block);
        for (number, value) in here.into_iter().rev() {
            block.stmts.insert(0, parse_quote!(if crate::__on(#number) { return #value; }));
        }
    }
}

/// `original`, or where a switch is on, what it makes of it.
fn switched(original: Expr, here: Here, make: impl Fn(TokenStream) -> TokenStream) -> Expr {
    if here.is_empty() {
        return original;
    }
    let switches = here.into_iter().map(|(number, replacement)| {
        let made = make(replacement);
        quote!(if crate::__on(#number) { #made } else)
    });
    parse_quote!((#(#switches)* { #original }))
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(both) => has_let(&both.left) || has_let(&both.right),
        _ => false,
    }
}

impl VisitMut for Weaver {
    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        self.function(&item.sig, &mut item.block);
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        self.function(&item.sig, &mut item.block);
    }

    fn visit_trait_item_fn_mut(&mut self, item: &mut syn::TraitItemFn) {
        if let Some(block) = &mut item.default {
            self.function(&item.sig, block);
        }
    }

    // What the compiler evaluates.
    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_trait_item_const_mut(&mut self, _: &mut syn::TraitItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}
    fn visit_expr_const_mut(&mut self, _: &mut syn::ExprConst) {}
    fn visit_type_mut(&mut self, _: &mut syn::Type) {}
    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}
    fn visit_variant_mut(&mut self, _: &mut syn::Variant) {}
    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}
    fn visit_expr_repeat_mut(&mut self, repeat: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut repeat.expr);
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Binary(both) if !has_let(&both.left) && !has_let(&both.right) => {
                let here = self.at(both.op.span(), Genre::BinaryOperator);
                visit_mut::visit_expr_mut(self, expr);
                let Expr::Binary(both) = expr.clone() else { unreachable!() };
                let (left, right) = (both.left, both.right);
                let op = |op: TokenStream| quote!((#left) #op (#right));
                *expr = switched(expr.clone(), here, op);
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_)) => {
                let here = self.at(unary.op.span(), Genre::UnaryOperator);
                visit_mut::visit_expr_mut(self, expr);
                let Expr::Unary(unary) = expr.clone() else { unreachable!() };
                let inner = unary.expr;
                *expr = switched(expr.clone(), here, |_nothing| quote!(#inner));
            }
            Expr::Struct(literal) if literal.rest.is_some() => {
                let here = literal.fields.iter().map(|field| (field.member.clone(), field.span()));
                let here = here.collect::<Vec<_>>().into_iter();
                let here = here
                    .map(|(member, span)| (member, self.at(span, Genre::StructField)))
                    .collect::<Vec<_>>();
                visit_mut::visit_expr_mut(self, expr);
                let Expr::Struct(literal) = expr.clone() else { unreachable!() };
                for (member, here) in here {
                    let mut without = literal.clone();
                    let others = without.fields.into_iter().filter(|field| field.member != member);
                    without.fields =
                        others.map(|field| Pair::Punctuated(field, parse_quote!(,))).collect();
                    *expr = switched(expr.clone(), here, |_nothing| quote!(#without));
                }
            }
            Expr::Match(_) => self.matching(expr),
            _ => visit_mut::visit_expr_mut(self, expr),
        }
    }
}

impl Weaver {
    fn matching(&mut self, expr: &mut Expr) {
        let Expr::Match(whole) = expr else { unreachable!() };
        let mut here = Vec::new();
        for arm in &whole.arms {
            let away = self.at(arm.span(), Genre::MatchArm);
            let guard = arm.guard.as_ref().filter(|(_, guard)| !has_let(guard));
            let guard = guard.map(|(_, guard)| guard.span());
            here.push((away, guard.map(|span| self.at(span, Genre::MatchArmGuard))));
        }
        visit_mut::visit_expr_mut(self, expr);
        let Expr::Match(whole) = expr else { unreachable!() };
        for (arm, (away, guards)) in whole.arms.iter_mut().zip(here) {
            if let (Some((_, guard)), Some(guards)) = (&mut arm.guard, guards) {
                **guard = switched((**guard).clone(), guards, |value| value);
            }
            for (number, _nothing) in away {
                arm.guard = Some((parse_quote!(if), parse_quote!(!crate::__on(#number))));
            }
        }
    }
}

/// Where the mutants of a woven file stand, to tell which of them the compiler refuses.
pub fn regions(source: &str) -> Result<Vec<(usize, Place, Place)>> {
    let mut finder = Finder(Vec::new());
    finder.visit_file(&syn::parse_file(source).context("cannot parse what was woven")?);
    Ok(finder.0)
}

struct Finder(Vec<(usize, Place, Place)>);

impl<'ast> Visit<'ast> for Finder {
    fn visit_expr_if(&mut self, node: &'ast syn::ExprIf) {
        if let Expr::Call(call) = &*node.cond
            && let Expr::Path(path) = &*call.func
            && path.path.segments.last().is_some_and(|last| last.ident == "__on")
            && let Some(Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. })) =
                call.args.first()
            && let Ok(number) = number.base10_parse()
        {
            let span = node.then_branch.span();
            self.0.push((number, span.start().into(), span.end().into()));
        }
        syn::visit::visit_expr_if(self, node);
    }
}

/// Whether an operator with a side that binds cannot be another: a let chain is no `||`.
pub fn in_let_chain(source: &str, mutant: &Mutant) -> Result<bool> {
    struct Chains(Place, bool);
    impl<'ast> Visit<'ast> for Chains {
        fn visit_expr_binary(&mut self, both: &'ast syn::ExprBinary) {
            let here = Place::from(both.op.span().start()) == self.0;
            let and = matches!(both.op, BinOp::And(_));
            self.1 |= here && and && (has_let(&both.left) || has_let(&both.right));
            syn::visit::visit_expr_binary(self, both);
        }
    }
    let mut chains = Chains(mutant.span.start, false);
    chains.visit_file(&syn::parse_file(source).context("cannot parse it")?);
    Ok(chains.1)
}
