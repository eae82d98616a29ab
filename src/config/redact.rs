//! Takes secrets out of URLs before a text with URLs in it is printed.
//!
//! Operators put passwords into URLs: of Redis, of endpoints, of proxies. A value can stand at the wrong key, so this
//! is done to every text about the configuration, and not only where a URL belongs.

use std::borrow::Cow;

use url::Url;

/// What stands where a secret would.
pub(super) const REDACTED: &str = "(redacted)";

/// Whether a text may hold a URL, and so a secret in one.
pub(super) fn may_hold_a_url(text: &str) -> bool {
    text.contains("://")
}

/// Replaces user names, passwords and queries of all URLs in a text. A URL ends at white space.
pub(super) fn without_secrets(text: &str) -> Cow<'_, str> {
    rewritten(text, &|user_info| !user_info.is_empty())
}

/// The same, but keeps a user name that has no password: in `redis.url` one may stand.
pub(super) fn without_passwords(text: &str) -> Cow<'_, str> {
    rewritten(text, &|user_info| user_info.contains(':'))
}

fn rewritten<'a>(text: &'a str, is_secret: &dyn Fn(&str) -> bool) -> Cow<'a, str> {
    if !may_hold_a_url(text) {
        return Cow::Borrowed(text);
    }
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("://") {
        told.push_str(before);
        told.push_str("://");
        let end = behind.find(char::is_whitespace).unwrap_or(behind.len());
        let (url, after) = behind.split_at(end);
        // The last @: a password may hold one, and the characters that would end a well-formed one.
        let url = match url.rsplit_once('@') {
            Some((user_info, host)) if is_secret(user_info) => {
                told.push_str(REDACTED);
                told.push('@');
                host
            }
            _ => url,
        };
        match url.split_once('?') {
            Some((place, _)) => {
                told.push_str(place);
                told.push('?');
                told.push_str(REDACTED);
            }
            None => told.push_str(url),
        }
        rest = after;
    }
    told.push_str(rest);
    Cow::Owned(told)
}

/// Where a URL leads, without user name, password, path, query and fragment: any of these may be a secret.
pub(super) fn place(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{}://{host}:{port}", url.scheme()),
        (Some(host), None) => format!("{}://{host}", url.scheme()),
        // Without a host all of it may be a user name and a password.
        (None, _) => "a URL without a host".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_a_url_is_left_in_a_text() {
        for (text, told) in [
            ("nothing", "nothing"),
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            (
                "at https://u:p@h/x, or so",
                "at https://(redacted)@h/x, or so",
            ),
            ("https://token@h", "https://(redacted)@h"),
            ("redis://:p@/s?s#@h:1/0", "redis://(redacted)@h:1/0"),
            ("https://h/?sig=p", "https://h/?(redacted)"),
            (
                "a://u:p@h b://h c://:p@h",
                "a://(redacted)@h b://h c://(redacted)@h",
            ),
            ("a://x://u:p@h", "a://(redacted)@h"),
        ] {
            assert_eq!(without_secrets(text), told);
        }
        assert_eq!(without_passwords("redis://u@h"), "redis://u@h");
        assert_eq!(without_passwords("redis://u:p@h"), "redis://(redacted)@h");
    }

    #[test]
    fn a_url_without_a_host_is_not_repeated() {
        let told = |text| place(&Url::parse(text).unwrap());
        assert_eq!(told("broker:hunter2@arm.test"), "a URL without a host");
        assert_eq!(told("http://u:p@h:81/x?y#z"), "http://h:81");
    }
}
