//! Pages: as many items as a page holds, and an opaque link to what follows.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::message::Request;

/// The body of a list: its items from where the caller left off, in the order of their keys.
///
/// The link names the last key that was seen, not a position: what is written between two pages neither
/// repeats nor hides another item.
///
/// Items are rendered only for their own page: a list of thousands would else be rendered for each.
pub(super) fn page<R: FnOnce() -> Value>(
    base: &str,
    request: &Request,
    size: usize,
    items: impl Iterator<Item = (String, R)>,
) -> Value {
    let after = request.parameter("$skiptoken").and_then(decode);
    let mut left = items
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
        .peekable();
    let mut value = Vec::new();
    let mut last = String::new();
    while value.len() < size.max(1)
        && let Some((key, render)) = left.next()
    {
        last = key;
        value.push(render());
    }
    let mut body = json!({ "value": value });
    if left.peek().is_some() {
        body["nextLink"] = next_link(base, request, &last).into();
    }
    body
}

fn next_link(base: &str, request: &Request, last: &str) -> String {
    let kept = request
        .query
        .iter()
        .filter(|(name, _)| name != "$skiptoken");
    let mut link = format!("{base}{}?", request.path);
    for (name, value) in kept {
        link.push_str(name);
        link.push('=');
        link.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        link.push('&');
    }
    link + "$skiptoken=" + &URL_SAFE_NO_PAD.encode(last)
}

fn decode(token: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}
