//! Azure's wildcard: `*` stands for any run of characters, `/` included, and case does not matter.
//!
//! Role definitions are written in it [azure.md §2]; the fault API takes it for operations as well.

/// Does `text` match `pattern`?
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let text = text.to_ascii_lowercase();
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(head) else {
        return false;
    };
    let mut middles: Vec<&str> = tail.split('*').collect();
    let last = middles.pop().unwrap_or_default();
    for middle in middles {
        // The first place is as good as any: what follows can only gain room by an early match.
        let Some(at) = rest.find(middle) else {
            return false;
        };
        rest = &rest[at + middle.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_crosses_slashes_and_case_does_not_matter() {
        for (pattern, text, expected) in [
            ("*", "anything/at/all", true),
            (
                "*/read",
                "Microsoft.ContainerService/managedClusters/read",
                true,
            ),
            ("*/read", "read", false),
            (
                "Microsoft.Authorization/*/Write",
                "microsoft.authorization/roleAssignments/write",
                true,
            ),
            (
                "Microsoft.Authorization/*/Write",
                "microsoft.authorization/write",
                false,
            ),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("roleAssignments/write", "roleAssignments/WRITE", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
