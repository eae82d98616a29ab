//! The operations on objects that Azure RBAC knows, by resource.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A resource that Azure RBAC knows, and what can be done to it.
pub(super) struct Resource {
    /// The API group; empty: the core group.
    pub(super) group: &'static str,
    /// Its name, in the plural.
    pub(super) name: &'static str,
    /// The ends of its data actions, such as `read` or `exec/action`.
    pub(super) words: Vec<&'static str>,
}

impl Resource {
    /// Its data action of this end, without the prefix that all have.
    pub(super) fn action(&self, word: &str) -> String {
        match self.group {
            "" => format!("{}/{word}", self.name),
            group => format!("{group}/{}/{word}", self.name),
        }
    }

    /// Whether its objects are in namespaces. No source of Azure's says it; these are not, in Kubernetes'
    /// own API and in its fleet's.
    pub(super) fn is_namespaced(&self) -> bool {
        let of_fleets =
            self.group == "placement.kubernetes-fleet.io" && self.name.starts_with("cluster");
        !(of_fleets || CLUSTER_WIDE.contains(&(self.group, self.name)))
    }
}

const CLUSTER_WIDE: &[(&str, &str)] = &[
    ("", "componentstatuses"),
    ("", "groups"),
    ("", "namespaces"),
    ("", "nodes"),
    ("", "persistentvolumes"),
    ("", "users"),
    ("admissionregistration.k8s.io", "initializerconfigurations"),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "userextras"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("cluster.kubernetes-fleet.io", "memberclusters"),
    ("extensions", "podsecuritypolicies"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    (
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
    ),
    ("metrics.k8s.io", "nodes"),
    ("networking.k8s.io", "ingressclasses"),
    ("node.k8s.io", "runtimeclasses"),
    ("policy", "podsecuritypolicies"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
];

/// Paths that are no objects', by their first segment.
const PATHS: &[&str] = &[
    "api",
    "apis",
    "healthz",
    "livez",
    "logs",
    "metrics",
    "openapi",
    "readyz",
    "resetMetrics",
    "swagger-api",
    "swagger-ui",
    "ui",
    "version",
];

pub(super) static OPERATIONS: LazyLock<Vec<Resource>> =
    LazyLock::new(|| parse(include_str!("data_actions.txt")));

fn parse(list: &'static str) -> Vec<Resource> {
    let mut by_resource: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let Some((resource, word)) = resource_and_word(line) else {
            continue;
        };
        by_resource.entry(resource).or_default().push(word);
    }
    by_resource
        .into_iter()
        .map(|((group, name), words)| Resource { group, name, words })
        .collect()
}

/// `apps/deployments/read` → group, resource and `read`; `None` for a path that is no object's.
fn resource_and_word(action: &'static str) -> Option<((&'static str, &'static str), &'static str)> {
    let segments: Vec<&str> = action.split('/').collect();
    if PATHS.contains(segments.first()?) {
        return None;
    }
    let of_word = if *segments.last()? == "action" { 2 } else { 1 };
    let resource = segments.get(..segments.len().checked_sub(of_word)?)?;
    let length: usize = resource.iter().map(|segment| segment.len() + 1).sum();
    let word = action.get(length..)?;
    match resource {
        [name] => Some((("", name), word)),
        [group, name] => Some(((group, name), word)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_an_operation_or_a_path() {
        let mut operations = 0;
        for line in include_str!("data_actions.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
        {
            let first = line.split('/').next().unwrap();
            assert_eq!(
                resource_and_word(line).is_none(),
                PATHS.contains(&first),
                "{line}"
            );
            operations += usize::from(resource_and_word(line).is_some());
        }
        let known: usize = OPERATIONS.iter().map(|known| known.words.len()).sum();
        assert_eq!(known, operations);
        for known in OPERATIONS.iter() {
            for word in &known.words {
                let words = ["read", "write", "delete"];
                assert!(words.contains(word) || word.ends_with("/action"), "{word}");
            }
        }
    }

    #[test]
    fn what_is_cluster_wide_is_known() {
        for place in CLUSTER_WIDE {
            let known = OPERATIONS
                .iter()
                .any(|known| (known.group, known.name) == *place);
            assert!(known, "{place:?}");
        }
    }
}
