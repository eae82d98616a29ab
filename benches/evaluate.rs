//! How long a decision takes by itself: the budget is a microsecond for somebody in 20 groups on a cluster with 1,000
//! assignments, because the wire costs twenty, and a batch of a thousand checks hardly has a wire.
//!
//! Each kind of question is asked of many people about many namespaces, those who are allowed apart from those who are
//! not. What is compared with the budget is the median over the rounds. The same questions about a thousand clusters in
//! turn are told besides: there, most of the time goes to fetching from memory what was not used lately.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use aks_access_broker::caller::Caller;
use aks_access_broker::caller::policy::{self, Action, Context, Policies, Resource, Rules};
use aks_access_broker::domain::access::{Principal, PrincipalType};
use aks_access_broker::domain::evaluate::{Asks, Decision, Question};
use aks_access_broker::domain::ids::{ClusterId, Namespace, PrincipalId};
use aks_access_broker::domain::kubernetes_request::{KubernetesRequest, ResourceRequest};
use aks_access_broker::domain::role::RoleDefinition;
use aks_access_broker::domain::snapshot::{Definitions, Snapshot};

mod support {
    pub(crate) mod company;
    pub(crate) mod questions;
    #[allow(dead_code, reason = "each benchmark judges in its own way")]
    pub(crate) mod report;
    pub(crate) mod snapshots;
}

use support::company::{
    Company, Holder, NAMESPACES, USERS, cluster_id, groups_of, guid, namespace,
};
use support::questions::{KINDS, What, question, scattered};
use support::report::{AnyError, Row, Verdict, conclude, median, progress};
use support::snapshots::{built_in_roles, snapshots};

const ROUNDS: usize = 9;
/// Decisions of each kind in a round.
const DECISIONS: u32 = 200_000;
/// So many people and namespaces a kind: more than a processor remembers the branches of.
const EXAMPLES: usize = 256;
/// Nanoseconds.
const BUDGET: f64 = 1_000.0;
/// What each kind of question is called.
const NAMES: [&str; KINDS] = [
    "access: RBAC Reader in a namespace",
    "access: RBAC Writer in a namespace",
    "access: RBAC Admin in a namespace",
    "access: RBAC Reader in two namespaces",
    "access: RBAC Reader on the cluster",
    "access: Cluster User",
    "request: get pods",
    "request: list deployments",
    "request: create pods/exec",
    "request: delete secrets",
    "request: watch events",
    "request: list nodes",
];
const MANY_CLUSTERS: usize = 1_000;
/// So many callers ask about so many clusters, each in twenty groups.
const CALLERS: usize = 20;
const CLUSTERS: usize = 100;
const FIRST_TIMES: u32 = 1_000;

/// A person and the groups that the directory lists.
struct Person {
    principal: Principal,
    groups: Vec<PrincipalId>,
}

/// A question, ready to be asked.
struct Asked {
    person: usize,
    what: Ready,
}

enum Ready {
    Access(Arc<RoleDefinition>, BTreeSet<Namespace>),
    Request(KubernetesRequest),
}

fn main() -> Result<ExitCode, AnyError> {
    let roles = built_in_roles()?;
    let people: Vec<Person> = (0..USERS).map(person).collect();
    let one = snapshots(Company { clusters: 1 }, &roles)?;
    let [one] = one.as_slice() else {
        return Err("one cluster was asked for".into());
    };
    let (length, groups) = (one.len(), people[0].groups.len());
    progress(&format!(
        "{length} assignments count on the cluster, everybody is in {groups} groups"
    ));
    let mut rows = Vec::new();
    for (kind, name) in NAMES.iter().enumerate() {
        for decision in [Decision::Allowed, Decision::Denied] {
            let asked = examples(one, &people, &roles, kind, decision)?;
            if asked.is_empty() {
                continue;
            }
            let nanoseconds = timed(&people, |nth| (one, &asked[nth % asked.len()]));
            progress(&format!("{name}, {decision:?}: {nanoseconds:.0} ns"));
            rows.push(Row {
                what: format!("{name}, {decision:?}"),
                figure: format!("{nanoseconds:.0} ns"),
                against: "1,000 ns".to_owned(),
                verdict: Verdict::AtMost(nanoseconds / BUDGET, 1.0),
            });
        }
    }
    rows.extend(of_many(one, &people, &roles)?);
    rows.extend(of_policies()?);
    conclude(&rows)
}

/// All kinds mixed, on one cluster and on a thousand.
fn of_many(one: &Snapshot, people: &[Person], roles: &Definitions) -> Result<[Row; 2], AnyError> {
    progress("putting 1,000 clusters together");
    let company = Company {
        clusters: MANY_CLUSTERS,
    };
    let many = snapshots(company, roles)?;
    let asked: Vec<Asked> = (0..EXAMPLES * KINDS)
        .map(|nth| asked(roles, nth % KINDS, nth))
        .collect::<Result<_, _>>()?;
    // Every question of every cluster once: what a role gives of it is worked out then.
    for snapshot in &many {
        for asked in asked.iter().take(KINDS) {
            black_box(snapshot.decide(&asked.question(people)));
        }
    }
    let of = |nth: usize| &asked[scattered(nth, asked.len())];
    let alone = timed(people, |nth| (one, of(nth)));
    let among_many = timed(people, |nth| {
        (&many[scattered(nth + 1, many.len())], of(nth))
    });
    let row = |what: &str, figure: f64, against: String, verdict: Verdict| Row {
        what: what.to_owned(),
        figure: format!("{figure:.0} ns"),
        against,
        verdict,
    };
    Ok([
        row(
            "all kinds mixed, one cluster",
            alone,
            String::new(),
            Verdict::Told,
        ),
        row(
            "all kinds mixed, 1,000 clusters in turn",
            among_many,
            format!("{alone:.0} ns"),
            Verdict::Ratio(among_many / alone),
        ),
    ])
}

/// Whether a caller may ask at all, by the policies that the broker brings along: asked before, and for the first time.
fn of_policies() -> Result<[Row; 2], AnyError> {
    let rules = Policies::load(None)?.current();
    let given = BTreeSet::from(["Access.Check".to_owned()]);
    let callers = (0..CALLERS).map(|number| {
        let [object, application] = ["object", "application"].map(|kind| guid(kind, number));
        let groups = groups_of(number).map(|group| Holder::Group(group).id());
        let caller = Caller::application(guid("tenant", 0), object, application);
        caller.with(given.clone(), groups.collect(), false)
    });
    let callers: Vec<Caller> = callers.collect();
    let clusters = (0..CLUSTERS).map(|number| ClusterId::parse(&cluster_id(number)));
    let clusters: Vec<ClusterId> = clusters.collect::<Result<_, _>>()?;
    let ask = |rules: &Rules, nth: usize| {
        let question = policy::Question {
            action: Action::CheckAccess,
            resource: Resource::Cluster {
                id: &clusters[scattered(nth, clusters.len())],
                known: None,
            },
            context: Context::Asked { to_self: false },
        };
        rules
            .decide(&callers[scattered(nth + 1, callers.len())], &question)
            .allowed
    };
    let first = {
        let start = Instant::now();
        for nth in 0..FIRST_TIMES as usize {
            black_box(ask(&rules, nth));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(FIRST_TIMES)
    };
    // All of them once.
    for nth in 0..10 * CALLERS * CLUSTERS {
        black_box(ask(&rules, nth));
    }
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for nth in 0..DECISIONS as usize {
            black_box(ask(&rules, nth));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS)
    });
    let again = median(rounds.collect());
    Ok([
        Row {
            what: "policy: a check by a caller who has asked before".to_owned(),
            figure: format!("{again:.0} ns"),
            against: "1,000 ns".to_owned(),
            verdict: Verdict::AtMost(again / BUDGET, 1.0),
        },
        Row {
            what: "policy: by one who has not, mostly".to_owned(),
            figure: format!("{first:.0} ns"),
            against: String::new(),
            verdict: Verdict::Told,
        },
    ])
}

fn person(number: usize) -> Person {
    let id = PrincipalId::new(Holder::User(number).id());
    let groups = groups_of(number).map(|group| PrincipalId::new(Holder::Group(group).id()));
    Person {
        principal: Principal::unnamed(id, PrincipalType::User),
        groups: groups.collect(),
    }
}

/// The `nth` question of a kind: about somebody and some namespace.
fn asked(roles: &Definitions, kind: usize, nth: usize) -> Result<Asked, AnyError> {
    let place = scattered(2 * nth, NAMESPACES);
    let what = match question(kind, place) {
        What::Access(role, namespaces) => {
            let definition = roles.get(&role.id()).and_then(Option::as_ref);
            let namespaces = namespaces
                .into_iter()
                .map(|it| Namespace::parse(&namespace(it)));
            Ready::Access(
                Arc::clone(definition.ok_or("the role is not among the published ones")?),
                namespaces.collect::<Result<_, _>>()?,
            )
        }
        What::Request(request) => {
            let place = request.namespace.map(|it| Namespace::parse(&namespace(it)));
            Ready::Request(KubernetesRequest::Resource(ResourceRequest {
                verb: request.verb.to_owned(),
                api_group: request.api_group.to_owned(),
                resource: request.resource.to_owned(),
                subresource: request.subresource.to_owned(),
                namespace: place.transpose()?,
            }))
        }
    };
    Ok(Asked {
        person: scattered(2 * nth + 1, USERS),
        what,
    })
}

/// Questions of a kind that are answered so.
fn examples(
    snapshot: &Snapshot,
    people: &[Person],
    roles: &Definitions,
    kind: usize,
    decision: Decision,
) -> Result<Vec<Asked>, AnyError> {
    let mut found = Vec::with_capacity(EXAMPLES);
    for nth in 0..20 * EXAMPLES {
        let asked = asked(roles, kind, nth)?;
        if snapshot.decide(&asked.question(people)).decision() == decision {
            found.push(asked);
        }
        if found.len() == EXAMPLES {
            break;
        }
    }
    Ok(found)
}

impl Asked {
    fn question<'a>(&'a self, people: &'a [Person]) -> Question<'a> {
        let person = &people[self.person];
        Question {
            principal: &person.principal,
            groups: &person.groups,
            asks: match &self.what {
                Ready::Access(role, namespaces) => Asks::Access { role, namespaces },
                Ready::Request(request) => Asks::Request(request),
            },
        }
    }
}

/// Nanoseconds a decision, the median of all rounds.
fn timed<'a>(people: &[Person], mut at: impl FnMut(usize) -> (&'a Snapshot, &'a Asked)) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for nth in 0..DECISIONS as usize {
            let (snapshot, asked) = at(nth);
            black_box(snapshot.decide(black_box(&asked.question(people))));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS)
    });
    median(rounds.collect())
}
