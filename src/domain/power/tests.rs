//! The built-in roles as Azure publishes them, custom ones by hand, and any role against the list of known actions.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// What Azure publishes: the emulator's data has its source beside it [azure.md §2].
const PUBLISHED: &str = include_str!("../../../emulator/data/role_definitions.json");
const KNOWN: &str = include_str!("../kubernetes_request/data_actions.txt");

fn block(data_actions: &[&str], not_data_actions: &[&str]) -> Permissions {
    let below = |actions: &[&str]| actions.iter().map(|it| format!("{PREFIX}/{it}")).collect();
    Permissions {
        data_actions: below(data_actions),
        not_data_actions: below(not_data_actions),
        ..Permissions::default()
    }
}

fn names(power: Power) -> Vec<&'static str> {
    let had = power.named().into_iter().filter(|(_, has)| *has);
    had.map(|(name, _)| name).collect()
}

fn power(data_actions: &[&str], not_data_actions: &[&str]) -> Vec<&'static str> {
    names(Power::from_permissions(&[block(
        data_actions,
        not_data_actions,
    )]))
}

#[test]
fn built_in_roles_have_the_power_of_their_published_definitions() {
    let published: Vec<Value> = serde_json::from_str(PUBLISHED).unwrap();
    for role in BuiltInRole::ALL {
        let id = role.id().to_string();
        let definition = published
            .iter()
            .find(|it| it["name"] == id.as_str())
            .unwrap();
        let texts = |block: &Value, key: &str| -> Vec<String> {
            serde_json::from_value(block[key].clone()).unwrap()
        };
        let blocks = definition["permissions"].as_array().unwrap().iter();
        let blocks: Vec<Permissions> = blocks
            .map(|block| Permissions {
                data_actions: texts(block, "dataActions"),
                not_data_actions: texts(block, "notDataActions"),
                ..Permissions::default()
            })
            .collect();
        assert_eq!(role.power(), Power::from_permissions(&blocks), "{role}");
    }
}

#[test]
fn custom_roles_have_the_power_of_what_they_give() {
    const ALL: [&str; 6] = [
        "reads",
        "writes",
        "secrets",
        "execs",
        "grants_roles",
        "everything",
    ];
    for (given, taken_out, expected) in [
        (&["pods/read"][..], &[][..], &["reads"][..]),
        (&["PODS/READ"], &[], &["reads"]),
        (&["pods/write"], &[], &["writes"]),
        (&["pods/delete"], &[], &["writes"]),
        (&["pods/exec/action"], &[], &["writes", "execs"]),
        (&["pods/*"], &["pods/exec/action"], &["reads", "writes"]),
        (&["*/read"], &[], &["reads", "secrets"]),
        (&["*/read"], &["secrets/*"], &["reads"]),
        (
            &["*"],
            &["*/write", "*/delete", "*/action"],
            &["reads", "secrets"],
        ),
        (&["sec*"], &[], &["reads", "writes", "secrets"]),
        (
            &["rbac.authorization.k8s.io/rolebindings/*"],
            &[],
            &["reads", "writes", "grants_roles"],
        ),
        (&["*/impersonate/action"], &[], &["writes", "grants_roles"]),
        (
            &["rbac.authorization.k8s.io/*/escalate/action"],
            &[],
            &["writes", "grants_roles"],
        ),
        // A word that nobody knows is no reading.
        (&["pods/frobnicate"], &[], &["writes"]),
        (&["*"], &[], &ALL),
        (&["*/*"], &[], &ALL),
        (&["*/read", "*/write", "*/delete", "*/action"], &[], &ALL),
        // What is left out is little, or nothing that there is.
        (&["*"], &["events/read"], &ALL),
        (&["*"], &["unheard/of"], &ALL),
        (
            &["*"],
            &[
                "namespaces/write",
                "namespaces/delete",
                "resourcequotas/write",
            ],
            &ALL,
        ),
        // As RBAC Admin has it.
        (&["*"], &["namespaces/*", "resourcequotas/*"], &ALL[..5]),
        (&[], &[], &[]),
    ] {
        assert_eq!(
            power(given, taken_out),
            expected,
            "{given:?} less {taken_out:?}"
        );
    }
    // One block takes nothing out of another.
    let blocks = [
        block(&["secrets/read"], &[]),
        block(&["*/read"], &["secrets/*"]),
    ];
    assert_eq!(
        names(Power::from_permissions(&blocks)),
        ["reads", "secrets"]
    );
    // Wherever the pattern begins.
    let everywhere = Permissions {
        data_actions: vec!["*".to_owned()],
        ..Permissions::default()
    };
    assert_eq!(Power::from_permissions(&[everywhere]), Power::EVERYTHING);
}

/// Exactly: whether a block gives an action that has no `*`.
fn gives(block: &Permissions, action: &str) -> bool {
    let action = format!("{PREFIX}/{action}");
    let matches = |patterns: &[String]| patterns.iter().any(|it| subsumes(it, &action));
    matches(&block.data_actions) && !matches(&block.not_data_actions)
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    let known: Vec<&str> = KNOWN
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let words = [
        "*",
        "*/read",
        "*/write",
        "*/delete",
        "*/action",
        "pods/*",
        "secrets/*",
        "*s/*",
        "rbac*",
    ];
    let one = prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        prop::sample::select(known).prop_map(str::to_owned),
    ];
    prop::collection::vec(one.prop_map(|it| format!("{PREFIX}/{it}")), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_power_is_overlooked(data_actions in patterns(), not_data_actions in patterns()) {
        let block = Permissions { data_actions, not_data_actions, ..Permissions::default() };
        let power = Power::from_permissions(std::slice::from_ref(&block));
        let known = KNOWN.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut has_all = true;
        for action in known {
            if !gives(&block, action) {
                has_all = false;
                continue;
            }
            let (is_read, is_secret) = (action.ends_with("/read"), action.starts_with("secrets/"));
            prop_assert!(if is_read { power.reads } else { power.writes }, "{action}");
            prop_assert!(!is_secret || power.secrets, "{action}");
            prop_assert!(action != "pods/exec/action" || power.execs);
            let grants = action.contains("rbac.authorization") && action.ends_with("/write")
                || ["bind", "escalate", "impersonate"].iter().any(|it| action.ends_with(&format!("/{it}/action")));
            prop_assert!(!grants || power.grants_roles, "{action}");
        }
        prop_assert!(!has_all || power == Power::EVERYTHING);
    }

    #[test]
    fn more_actions_never_make_less_power(
        given in patterns(), more in patterns(), taken_out in patterns(), kept in 0_usize..6,
    ) {
        let less = Permissions {
            data_actions: given.clone(),
            not_data_actions: taken_out.clone(),
            ..Permissions::default()
        };
        let more = Permissions {
            data_actions: [given, more].concat(),
            not_data_actions: taken_out.into_iter().take(kept).collect(),
            ..Permissions::default()
        };
        let (less, more) = (Power::from_permissions(&[less]), Power::from_permissions(&[more]));
        for ((name, had), (_, has)) in less.named().into_iter().zip(more.named()) {
            prop_assert!(!had || has, "{name}");
        }
    }
}

/// Who leaves out exec, or writes `*` in four pieces, gives no less.
#[test]
fn a_wildcard_in_pieces_is_everything_as_well() {
    let pieces = ["*/read", "*/write", "*/delete", "*/action"];
    for left_out in [&[][..], &["pods/exec/action"]] {
        let power = power(&pieces, left_out);
        assert!(power.contains(&"everything"), "{left_out:?}: {power:?}");
    }
}
