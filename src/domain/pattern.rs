//! Patterns of actions: `*` stands for any run of characters, `/` included; case does not matter
//! [azure.md §2].

/// Whether everything that `narrow` matches is matched by `wide` as well.
///
/// Exact: a `*` of `narrow` can stand for a character that occurs in no pattern, so only a `*` of `wide`
/// can take it up; and if one does, it takes up whatever else stands there.
#[must_use]
pub fn subsumes(wide: &str, narrow: &str) -> bool {
    let (wide, narrow) = (wide.as_bytes(), narrow.as_bytes());
    let (mut w, mut n) = (0, 0);
    // Where the last `*` of `wide` stands, and up to where of `narrow` it reaches so far.
    let mut star: Option<(usize, usize)> = None;
    while n < narrow.len() {
        if wide.get(w) == Some(&b'*') {
            star = Some((w, n));
            w += 1;
        } else if wide
            .get(w)
            .is_some_and(|c| narrow[n] != b'*' && c.eq_ignore_ascii_case(&narrow[n]))
        {
            w += 1;
            n += 1;
        } else if let Some((at, reach)) = star {
            star = Some((at, reach + 1));
            w = at + 1;
            n = reach + 1;
        } else {
            return false;
        }
    }
    wide[w..].iter().all(|c| *c == b'*')
}

/// Whether some action matches both.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    // Up to the first star of either there is but one way to match.
    while let ([c, behind @ ..], [d, rest @ ..]) = (one, other)
        && *c != b'*'
        && *d != b'*'
    {
        if !c.eq_ignore_ascii_case(d) {
            return false;
        }
        (one, other) = (behind, rest);
    }
    // reached[j]: what is behind has matched both `one[..i]` and `other[..j]`.
    let mut reached = vec![false; other.len() + 1];
    reached[0] = true;
    skip_stars(&mut reached, other);
    for c in one {
        let mut next = vec![false; other.len() + 1];
        for j in 0..=other.len() {
            if !reached[j] {
                continue;
            }
            // A star of either may take up what the other has here; one of `one` may also be empty.
            next[j] |= *c == b'*' || other.get(j) == Some(&b'*');
            if let Some(d) = other.get(j)
                && (c.eq_ignore_ascii_case(d) || *d == b'*')
            {
                next[j + 1] = true;
            }
        }
        if *c == b'*' {
            // It takes up any run of `other`.
            for j in 1..=other.len() {
                next[j] |= next[j - 1];
            }
        }
        skip_stars(&mut next, other);
        reached = next;
    }
    reached[other.len()]
}

/// A star of `other` may be empty.
fn skip_stars(reached: &mut [bool], other: &[u8]) {
    for (j, c) in other.iter().enumerate() {
        reached[j + 1] |= reached[j] && *c == b'*';
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it is defined, one character at a time.
    fn matches(pattern: &[u8], action: &[u8]) -> bool {
        match pattern.split_first() {
            None => action.is_empty(),
            Some((b'*', rest)) => (0..=action.len()).any(|taken| matches(rest, &action[taken..])),
            Some((c, rest)) => action
                .split_first()
                .is_some_and(|(d, behind)| c.eq_ignore_ascii_case(d) && matches(rest, behind)),
        }
    }

    /// Every text of up to five characters out of `a`, `B`, `/` and `z`, which no pattern names.
    fn universe() -> Vec<Vec<u8>> {
        let mut all = vec![Vec::new()];
        let mut longest = vec![Vec::new()];
        for _ in 0..5 {
            longest = longest
                .iter()
                .flat_map(|text: &Vec<u8>| {
                    b"aB/z".iter().map(|c| {
                        let mut longer = text.clone();
                        longer.push(*c);
                        longer
                    })
                })
                .collect();
            all.extend(longest.iter().cloned());
        }
        all
    }

    #[test]
    fn patterns_compare_as_azure_compares_them() {
        for (wide, narrow, expected) in [
            (
                "*",
                "Microsoft.ContainerService/managedClusters/pods/read",
                true,
            ),
            ("m/MANAGEDclusters/*", "M/managedClusters/pods/*", true),
            ("m/pods/*", "m/pods/exec/action", true),
            ("m/pods/*", "m/*", false),
            ("*/read", "m/pods/read", true),
            ("*/read", "m/pods/*", false),
            ("m/pods/read", "m/pods/read", true),
            ("m/pods/read", "m/pods/readx", false),
            ("m/*/read", "m/*/x/read", true),
            ("", "", true),
            ("", "*", false),
            ("a*", "a", true),
        ] {
            assert_eq!(subsumes(wide, narrow), expected, "{wide} {narrow}");
        }
        assert!(overlap("m/*/write", "m/pods/*"));
        assert!(!overlap("m/*/write", "m/*/read"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn subsuming_and_overlapping_agree_with_the_definition(
            one in "[ab/*]{0,4}",
            other in "[ab/*]{0,4}",
        ) {
            let (p, q) = (one.as_bytes(), other.as_bytes());
            // Five characters are enough to tell: each pattern has at most four, and `z` is in none.
            let universe = universe();
            let both = universe.iter().any(|action| matches(p, action) && matches(q, action));
            prop_assert!(!both || overlap(&one, &other));
            prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
            let all = universe.iter().all(|action| !matches(q, action) || matches(p, action));
            prop_assert_eq!(subsumes(&one, &other), all);
        }
    }
}
