//! Holds the contract's list of error reasons to the ones that the code gives.

#![allow(clippy::expect_used)] // clippy lets tests unwrap, but not the functions that they share

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

type Reasons = BTreeMap<String, String>;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is there")
}

/// Rows `| reason | code | … |` of the comment at the service.
fn of_the_contract(contract: &str) -> Reasons {
    contract
        .lines()
        .skip_while(|line| *line != "// | reason | code | what it says |")
        .skip(2)
        .map_while(|line| line.strip_prefix("// | "))
        .filter_map(|row| {
            let mut cells = row.split(" | ");
            let reason = cells.next()?.trim_matches('`');
            Some((reason.to_owned(), cells.next()?.to_owned()))
        })
        .collect()
}

/// Pairs `("REASON", code::CODE)`: a Rust enum cannot be asked for its members.
fn of_the_code(source: &str) -> Reasons {
    let mut found = Reasons::new();
    collect(
        source.parse().expect("the file's tokens are Rust"),
        &mut found,
    );
    found
}

fn collect(tokens: TokenStream, found: &mut Reasons) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    if let [
        TokenTree::Literal(reason),
        _,
        TokenTree::Ident(module),
        _,
        _,
        TokenTree::Ident(code),
    ] = tokens.as_slice()
        && module == "code"
    {
        let reason = reason.to_string().trim_matches('"').to_owned();
        found.insert(reason, code.to_string());
    }
    for token in tokens {
        if let TokenTree::Group(group) = token {
            collect(group.stream(), found);
        }
    }
}

#[test]
fn every_reason_that_the_code_gives_is_in_the_contract_with_its_code() {
    let contract = of_the_contract(&file("proto/aks/access/v1/access_broker.proto"));
    let code = of_the_code(&file("src/domain/reason.rs"));
    assert!(code.contains_key("INVALID_REQUEST"), "none were found");
    let missing: Reasons = code
        .into_iter()
        .filter(|(reason, code)| contract.get(reason) != Some(code))
        .collect();
    assert!(
        missing.is_empty(),
        "missing at AccessBrokerService, or there with another code: {missing:?}"
    );
}

#[test]
fn a_reason_that_the_contract_lacks_is_seen() {
    let contract = of_the_contract(
        "// | reason | code | what it says |\n// | --- | --- | --- |\n// | `A_B` | NOT_FOUND | x |\n//\n",
    );
    assert_eq!(contract["A_B"], "NOT_FOUND");
    let code = of_the_code(r#"match x { A => ("A_B", code::INTERNAL), B => { ("C", code::OK) } }"#);
    assert_eq!(code["A_B"], "INTERNAL");
    assert_eq!(code["C"], "OK");
}
