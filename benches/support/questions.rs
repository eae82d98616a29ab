//! What a portal and an operator ask: both kinds of questions, of which some are allowed and some are not.

use aks_access_broker::domain::role::BuiltInRole;

use super::company::NAMESPACES;

/// A request to an API server.
pub(crate) struct Request {
    pub(crate) verb: &'static str,
    pub(crate) api_group: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) subresource: &'static str,
    /// By number; `None`: in the whole cluster.
    pub(crate) namespace: Option<usize>,
}

/// What is asked of somebody on a cluster.
pub(crate) enum What {
    /// Whether it holds all that a role gives, in these namespaces or, without any, on the whole cluster.
    Access(BuiltInRole, Vec<usize>),
    /// Whether the API server would let a request through.
    Request(Request),
}

/// How many different questions there are, apart from the namespaces that they name.
pub(crate) const KINDS: usize = 12;

/// A question of one of the kinds, about a namespace.
pub(crate) fn question(kind: usize, namespace: usize) -> What {
    let here = vec![namespace];
    let request = |verb, api_group, resource, subresource| {
        What::Request(Request {
            verb,
            api_group,
            resource,
            subresource,
            namespace: Some(namespace),
        })
    };
    match kind {
        0 => What::Access(BuiltInRole::RbacReader, here),
        1 => What::Access(BuiltInRole::RbacWriter, here),
        2 => What::Access(BuiltInRole::RbacAdmin, here),
        3 => {
            let beside = (namespace + 1) % NAMESPACES;
            What::Access(BuiltInRole::RbacReader, vec![namespace, beside])
        }
        4 => What::Access(BuiltInRole::RbacReader, Vec::new()),
        5 => What::Access(BuiltInRole::ClusterUser, Vec::new()),
        6 => request("get", "", "pods", ""),
        7 => request("list", "apps", "deployments", ""),
        8 => request("create", "", "pods", "exec"),
        9 => request("delete", "", "secrets", ""),
        10 => request("watch", "", "events", ""),
        _ => What::Request(Request {
            verb: "list",
            api_group: "",
            resource: "nodes",
            subresource: "",
            namespace: None,
        }),
    }
}

/// The `nth` number below `end`, of a series that repeats late and goes everywhere.
pub(crate) fn scattered(nth: usize, end: usize) -> usize {
    // A step of splitmix64.
    let mut mixed = (nth as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((mixed >> 33) % (end as u64)).unwrap_or(0)
}
