//! Every row of the webhook's mapping [azure.md §3].

use super::*;

const ALL: Features = Features {
    custom_resources: true,
    subresources: true,
};
const NONE: Features = Features {
    custom_resources: false,
    subresources: false,
};

fn request(verb: &str, group: &str, resource: &str) -> ResourceRequest {
    ResourceRequest {
        verb: verb.to_owned(),
        api_group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: String::new(),
        namespace: None,
    }
}

fn in_namespace(request: ResourceRequest) -> ResourceRequest {
    ResourceRequest {
        namespace: Some(Namespace::parse("shop").unwrap()),
        ..request
    }
}

fn actions(request: ResourceRequest, features: Features) -> Vec<String> {
    match KubernetesRequest::Resource(request).demand(features) {
        Ok(Demand::All(actions)) => actions
            .into_iter()
            .map(|action| {
                action
                    .id
                    .strip_prefix(&format!("{PREFIX}/"))
                    .unwrap()
                    .to_owned()
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_verb_has_its_word() {
    for (verb, word) in [
        ("get", "pods/read"),
        ("list", "pods/read"),
        ("watch", "pods/read"),
        ("create", "pods/write"),
        ("update", "pods/write"),
        ("patch", "pods/write"),
        ("delete", "pods/delete"),
        ("deletecollection", "pods/delete"),
        ("approve", "pods"),
    ] {
        for features in [ALL, NONE] {
            assert_eq!(
                actions(request(verb, "", "pods"), features),
                [word],
                "{verb}"
            );
        }
    }
    for (verb, group, resource, action) in [
        (
            "bind",
            "rbac.authorization.k8s.io",
            "roles",
            "rbac.authorization.k8s.io/roles/bind/action",
        ),
        (
            "escalate",
            "rbac.authorization.k8s.io",
            "clusterroles",
            "rbac.authorization.k8s.io/clusterroles/escalate/action",
        ),
        (
            "use",
            "policy",
            "podsecuritypolicies",
            "policy/podsecuritypolicies/use/action",
        ),
        ("impersonate", "", "users", "users/impersonate/action"),
        (
            "impersonate",
            "authentication.k8s.io",
            "userextras",
            "authentication.k8s.io/userextras/impersonate/action",
        ),
    ] {
        assert_eq!(actions(request(verb, group, resource), ALL), [action]);
    }
}

#[test]
fn groups_are_named_but_for_the_core_one_and_versions_never() {
    assert_eq!(
        actions(request("list", "apps", "deployments"), ALL),
        ["apps/deployments/read"]
    );
    assert_eq!(
        actions(in_namespace(request("get", "", "secrets")), ALL),
        ["secrets/read"]
    );
    // The core group has no custom resources: what Azure does not know there is asked for by its name.
    assert_eq!(
        actions(request("get", "", "gadgets"), ALL),
        ["gadgets/read"]
    );
}

#[test]
fn exec_is_an_action_of_its_own_and_every_other_subresource_counts_as_its_resource() {
    for (resource, subresource, verb, action, attribute) in [
        ("pods", "exec", "create", "pods/exec/action", Some("exec")),
        ("pods", "exec", "get", "pods/exec/action", Some("exec")),
        ("pods", "log", "get", "pods/read", None),
        ("pods", "logs", "get", "pods/read", Some("logs")),
        (
            "pods",
            "portforward",
            "create",
            "pods/write",
            Some("portforward"),
        ),
        ("pods", "proxy", "get", "pods/read", Some("proxy")),
        (
            "pods",
            "ephemeralcontainers",
            "patch",
            "pods/write",
            Some("ephemeralcontainers"),
        ),
        ("pods", "attach", "create", "pods/write", Some("attach")),
        ("pods", "status", "patch", "pods/write", None),
        ("services", "proxy", "get", "services/read", None),
        (
            "deployments",
            "scale",
            "update",
            "apps/deployments/write",
            Some("scale"),
        ),
        (
            "statefulsets",
            "scale",
            "get",
            "apps/statefulsets/read",
            Some("scale"),
        ),
        (
            "replicasets",
            "scale",
            "patch",
            "apps/replicasets/write",
            Some("scale"),
        ),
        ("daemonsets", "status", "get", "apps/daemonsets/read", None),
    ] {
        let group = if action.starts_with("apps/") {
            "apps"
        } else {
            ""
        };
        let asked = ResourceRequest {
            subresource: subresource.to_owned(),
            ..request(verb, group, resource)
        };
        assert_eq!(actions(asked.clone(), ALL), [action]);
        for (features, expected) in [(ALL, attribute), (NONE, None)] {
            let Ok(Demand::All(told)) = KubernetesRequest::Resource(asked.clone()).demand(features)
            else {
                panic!("{asked:?}")
            };
            assert_eq!(
                told[0].subresource.as_deref(),
                expected,
                "{resource}/{subresource}"
            );
        }
    }
}

#[test]
fn what_azure_does_not_know_is_a_custom_resource() {
    for (group, resource) in [("kyverno.io", "policies"), ("apps", "gadgets")] {
        for (verb, word) in [
            ("watch", "read"),
            ("patch", "write"),
            ("deletecollection", "delete"),
        ] {
            let asked = KubernetesRequest::Resource(request(verb, group, resource));
            let expected = DataAction {
                custom_resource: Some((group.to_owned(), resource.to_owned())),
                ..DataAction::plain(&format!("customresources/{word}"))
            };
            assert_eq!(asked.demand(ALL), Ok(Demand::All(vec![expected])));
            // Where the cluster has not got the feature it is asked for like any other.
            let plain = format!("{group}/{resource}/{word}");
            assert_eq!(actions(request(verb, group, resource), NONE), [plain]);
        }
        let asked = KubernetesRequest::Resource(request("bind", group, resource));
        assert!(matches!(
            asked.demand(ALL),
            Err(NoDemand::CustomResourceVerb { .. })
        ));
        let every = actions(request("*", group, resource), ALL);
        assert_eq!(
            every,
            [
                "customresources/read",
                "customresources/write",
                "customresources/delete"
            ]
        );
    }
    let every = actions(request("get", "kyverno.io", "*"), ALL);
    assert_eq!(
        every,
        ["customresources/read"],
        "a group of which nothing is known"
    );
}

#[test]
fn a_star_stands_for_every_operation_that_azure_knows() {
    assert_eq!(
        actions(request("*", "", "pods"), ALL),
        ["pods/delete", "pods/exec/action", "pods/read", "pods/write"]
    );
    let everything = actions(request("*", "*", "*"), ALL);
    assert!(everything.contains(&"nodes/read".to_owned()));
    assert!(everything.contains(&"users/impersonate/action".to_owned()));
    assert!(
        !everything
            .iter()
            .any(|action| action.starts_with("healthz")),
        "paths are not objects"
    );
    let namespaced = actions(in_namespace(request("*", "*", "*")), ALL);
    assert!(namespaced.contains(&"secrets/read".to_owned()));
    assert!(!namespaced.contains(&"nodes/read".to_owned()) && namespaced.len() < everything.len());
    let reads = actions(request("list", "*", "*"), ALL);
    assert!(reads.iter().all(|action| action.ends_with("/read")) && !reads.is_empty());
    let apps = actions(request("*", "apps", "*"), ALL);
    assert!(apps.iter().all(|action| action.starts_with("apps/")) && apps.len() > 10);
    let core = actions(request("get", "", "*"), ALL);
    assert!(
        core.contains(&"pods/read".to_owned())
            && !core.contains(&"apps/deployments/read".to_owned())
    );
    let deployments = actions(request("get", "*", "deployments"), ALL);
    assert_eq!(
        deployments,
        ["apps/deployments/read", "extensions/deployments/read"]
    );
    for (asked, features) in [
        (request("*", "", "gadgets"), ALL),
        (request("*", "apps", "gadgets"), NONE),
        (request("approve", "*", "*"), ALL),
        (request("get", "kyverno.io", "*"), NONE),
    ] {
        let refused = KubernetesRequest::Resource(asked.clone()).demand(features);
        assert!(
            matches!(refused, Err(NoDemand::NothingMatches { .. })),
            "{asked:?}"
        );
    }
}

#[test]
fn paths_are_asked_for_by_their_segments_but_for_discovery() {
    let demand = |verb: &str, path: &str| {
        let request = KubernetesRequest::Path {
            path: path.to_owned(),
            verb: verb.to_owned(),
        };
        request.demand(ALL).unwrap()
    };
    for path in [
        "/api",
        "/apis/apps/v1",
        "/openapi/v2",
        "/version",
        "/version/",
        "/healthz/etcd",
    ] {
        assert_eq!(demand("get", path), Demand::Nothing, "{path}");
        assert_ne!(demand("post", path), Demand::Nothing, "{path}");
    }
    for (verb, path, action) in [
        ("get", "/metrics", "metrics/read"),
        ("get", "/logs/kubelet.log", "logs/kubelet.log/read"),
        ("get", "/livez/ping", "livez/ping/read"),
        ("get", "//readyz/", "readyz/read"),
        ("delete", "/healthz", "healthz/delete"),
        ("head", "/metrics", "metrics"),
        ("*", "/metrics", "metrics/*"),
        ("*", "/healthz", "healthz/*"),
        ("get", "/", "read"),
        ("*", "/", "*"),
    ] {
        let expected = Demand::All(vec![DataAction::plain(action)]);
        assert_eq!(demand(verb, path), expected, "{verb} {path}");
    }
    // What has neither segments nor a word is asked for without a slash: no pattern of a role's matches that.
    let root = DataAction::named(PREFIX.to_owned());
    assert_eq!(demand("head", "/"), Demand::All(vec![root]));
}

#[test]
fn what_makes_no_difference_to_azure_rbac_makes_no_other_question() {
    let of = |subresource: &str, namespace: &str| {
        let request = ResourceRequest {
            subresource: subresource.to_owned(),
            namespace: Namespace::parse(namespace).ok(),
            ..request("get", "", "pods")
        };
        KubernetesRequest::Resource(request)
    };
    for (one, other, same) in [
        (of("", "a"), of("", "b"), true),
        (of("", "a"), of("", ""), false),
        (of("log", "a"), of("status", "a"), true),
        (of("log", "a"), of("", "a"), true),
        (of("exec", "a"), of("", "a"), false),
        (of("exec", "a"), of("attach", "a"), false),
    ] {
        assert_eq!(one.asks_the_same(&other), same, "{one:?} {other:?}");
        let demand = |asked: &KubernetesRequest| asked.demand(ALL).unwrap();
        assert!(!same || demand(&one) == demand(&other), "{one:?} {other:?}");
    }
}
