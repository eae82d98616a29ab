//! Finds the paths that a source file names, in whichever way it names them.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path as a file names it, with `super`, `self` and `crate` resolved to a path from the crate's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// It stands right after `use` or `extern crate`.
    pub(crate) imported: bool,
}

#[derive(Default)]
pub(crate) struct Reading {
    pub(crate) paths: Vec<Named>,
    /// Modules that the file declares: `redis::Settings` beside `mod redis;` is no crate.
    pub(crate) declared: BTreeSet<String>,
    pub(crate) documented: bool,
}

/// Reads a file that is the module `module` (`["grpc", "service"]`).
pub(crate) fn read(source: &str, module: &[&str]) -> Reading {
    let tokens: TokenStream = source.parse().expect("the file's tokens are Rust");
    let mut reading = Reading {
        documented: source
            .lines()
            .find(|line| !line.trim().is_empty() && !line.trim_start().starts_with("#!["))
            .is_some_and(|line| line.starts_with("//! ")),
        ..Reading::default()
    };
    let here: Vec<String> = module.iter().map(ToString::to_string).collect();
    walk(tokens, &here, &mut reading);
    reading
}

fn walk(tokens: TokenStream, here: &[String], reading: &mut Reading) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        at = match &tokens[at] {
            TokenTree::Ident(word) if word == "mod" => enter_module(&tokens, at, here, reading),
            TokenTree::Ident(word) if word == "pub" && is_visibility(tokens.get(at + 1)) => at + 2,
            token if is_name(token) && begins_path(&tokens, at) => {
                let imported = at > 0 && is_ident(&tokens[at - 1], &["use", "crate"]);
                expand(&tokens, at, here, &[], imported, reading)
            }
            TokenTree::Group(group) => {
                walk(group.stream(), here, reading);
                at + 1
            }
            _ => at + 1,
        };
    }
}

fn enter_module(tokens: &[TokenTree], at: usize, here: &[String], reading: &mut Reading) -> usize {
    let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else {
        return at + 1;
    };
    reading.declared.insert(name.to_string());
    if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
        let mut inside = here.to_vec();
        inside.push(name.to_string());
        walk(body.stream(), &inside, reading);
        return at + 3;
    }
    at + 2
}

/// Reads one path, or one tree of a `use`, from `at` on; returns where it ends.
fn expand(
    tokens: &[TokenTree],
    mut at: usize,
    here: &[String],
    prefix: &[String],
    imported: bool,
    reading: &mut Reading,
) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens[at].span().start().line;
    loop {
        match &tokens[at] {
            TokenTree::Ident(word) => segments.push(word.to_string()),
            TokenTree::Punct(star) if star.as_char() == '*' => segments.push("*".to_owned()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for tree in inner.split(|token| is_punct(token, ',')) {
                    if !tree.is_empty() {
                        expand(tree, 0, here, &segments, imported, reading);
                    }
                }
                return at + 1;
            }
            // A turbofish, or whatever else ends a path.
            _ => break,
        }
        at += 1;
        if !is_path_separator(tokens, at) || tokens.get(at + 2).is_none() {
            break;
        }
        at += 2;
    }
    reading.paths.push(Named {
        segments: resolve(segments, here),
        line,
        imported,
    });
    at
}

fn resolve(segments: Vec<String>, here: &[String]) -> Vec<String> {
    let mut base = match segments[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => here.to_vec(),
        _ => return segments,
    };
    for segment in segments {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => {
                base.pop();
            }
            _ => base.push(segment),
        }
    }
    base.insert(0, "crate".to_owned());
    base
}

fn is_ident(token: &TokenTree, words: &[&str]) -> bool {
    matches!(token, TokenTree::Ident(ident) if words.iter().any(|word| ident == word))
}

fn is_punct(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at..at + 2), Some([a, b]) if is_punct(a, ':') && is_punct(b, ':'))
}

/// `(crate)`, `(super)`, `(self)`, `(in …)` after `pub`: it names who sees, not what is used.
fn is_visibility(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else {
        return false;
    };
    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
    match inner.as_slice() {
        [only] => is_ident(only, &["crate", "super", "self"]),
        [first, ..] => is_ident(first, &["in"]),
        [] => false,
    }
}

/// A field, a lifetime and the tail of `Vec::<u8>::new` are no beginnings; `::redis` is one.
fn begins_path(tokens: &[TokenTree], at: usize) -> bool {
    if at == 0 {
        return true;
    }
    if is_punct(&tokens[at - 1], '.') || is_punct(&tokens[at - 1], '\'') {
        return at >= 2 && is_punct(&tokens[at - 2], '.');
    }
    if at < 2 || !is_path_separator(tokens, at - 2) {
        return true;
    }
    match &tokens[..at - 2] {
        [.., dash, angle] if is_punct(angle, '>') => is_punct(dash, '-') || is_punct(dash, '='),
        [.., before] => !is_name(before),
        [] => true,
    }
}

/// A keyword may stand before `::redis`; a name there makes it the middle of a path.
fn is_name(token: &TokenTree) -> bool {
    const KEYWORDS: &[&str] = &[
        "use", "return", "in", "as", "dyn", "impl", "for", "mut", "else", "match", "if", "while",
    ];
    matches!(token, TokenTree::Ident(_)) && !is_ident(token, KEYWORDS)
}
