//! `CheckAccess`: two layers, as AKS asks them.

use std::collections::{BTreeMap, BTreeSet};

use aks_access_broker::grpc::proto::grant::State;
use aks_access_broker::grpc::proto::{
    AccessPath, CheckAccessRequest, CheckAccessResponse, Decision, Layer,
};
use tonic::Code;
use uuid::Uuid;

use crate::company::{Principal, Role, Takes};
use crate::faults;
use crate::grant::{namespaces_of, principal_of, role_of, role_refused};
use crate::model::{
    End, Fate, Model, Place, Target, Told, Verdict, Window, agree, at_fault, holds, ns, refused,
    scope, served,
};

/// Something that counts for a principal on a cluster.
#[derive(Clone, Debug)]
struct Held {
    holder: Uuid,
    role: Role,
    /// In lower case.
    scope: String,
    /// The latest end of the live grants that call for it.
    end: End,
    /// It is there for certain; else it may be there still, or already.
    certain: bool,
    managed: bool,
}

/// A question that can be asked.
struct Question {
    principal: Principal,
    cluster: String,
    takes: Takes,
    role: Role,
    /// Where the role is asked about: at the cluster, or at each of some namespaces.
    scopes: Vec<String>,
}

/// The answers to the two layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layers {
    cluster_access: bool,
    permission: bool,
}

impl Layers {
    const fn are_allowed(self) -> bool {
        self.cluster_access && self.permission
    }
}

fn holds_at(held: &Held, scope: &str) -> bool {
    let below = scope.strip_prefix(&held.scope);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

impl Question {
    fn opens(&self, held: &Held) -> bool {
        held.role.opens_the_cluster() && holds_at(held, &self.cluster)
    }

    /// Whether it gives everything that is asked about at a scope. *Cluster User* gives nothing in the cluster:
    /// whoever asks about it asks whether the principal may fetch credentials.
    fn gives(&self, held: &Held, scope: &str) -> bool {
        if self.role == Role::ClusterUser {
            return self.opens(held);
        }
        held.role >= self.role && holds_at(held, scope)
    }

    fn answer(&self, held: &[&Held]) -> Layers {
        let without_entra = matches!(self.takes, Takes::Nothing(..));
        let asks_azure = self.takes == Takes::Everything || self.role == Role::ClusterUser;
        let given = |scope: &String| held.iter().any(|held| self.gives(held, scope));
        Layers {
            cluster_access: !without_entra && held.iter().any(|held| self.opens(held)),
            permission: !without_entra && asks_azure && self.scopes.iter().all(given),
        }
    }

    /// When the answer is no longer "allowed": the first end of anything held at which what is left does not
    /// suffice. `None`: no end is known.
    fn end(&self, held: &[&Held]) -> End {
        let ends: BTreeSet<End> = held.iter().map(|held| held.end).collect();
        let suffices = |end: &End| {
            let left: Vec<&Held> = held
                .iter()
                .copied()
                .filter(|held| held.end > *end)
                .collect();
            self.answer(&left).are_allowed()
        };
        let end = ends.into_iter().find(|end| !suffices(end));
        end.unwrap_or(End::Never)
    }
}

impl Model {
    pub(crate) fn check(
        &self,
        asked: &CheckAccessRequest,
        told: &Told<CheckAccessResponse>,
        when: Window,
    ) -> Verdict {
        let faults = faults::of_check(asked);
        if !faults.is_empty() {
            return at_fault(told, &faults);
        }
        let no_cluster = Takes::Nothing(Code::NotFound, "CLUSTER_NOT_FOUND");
        let cluster = self.company.cluster(&asked.cluster);
        let takes = cluster.map_or(no_cluster, |cluster| cluster.takes);
        let no_role =
            role_refused(asked.access.as_ref()).filter(|(code, _)| *code == Code::NotFound);
        if takes == no_cluster || no_role.is_some() {
            let mut reasons = Vec::from_iter(no_role);
            reasons.extend((takes == no_cluster).then_some((Code::NotFound, "CLUSTER_NOT_FOUND")));
            return refused(told, &reasons);
        }
        let Some(role) = role_of(asked.access.as_ref()) else {
            return Err("the walk asks about its own roles only".to_owned());
        };
        let principal = asked.principal.as_ref().ok_or("a principal")?;
        let canonical = asked.cluster.to_lowercase();
        let namespaces = namespaces_of(asked.access.as_ref());
        let mut scopes: Vec<String> = namespaces
            .iter()
            .map(|name| scope(&canonical, Some(name)))
            .collect();
        if scopes.is_empty() {
            scopes.push(canonical.clone());
        }
        let question = Question {
            principal: principal_of(&principal.object_id),
            cluster: canonical,
            takes,
            role,
            scopes,
        };
        self.answer_agrees(&question, asked, served(told)?, when)
    }

    fn answer_agrees(
        &self,
        question: &Question,
        asked: &CheckAccessRequest,
        told: &CheckAccessResponse,
        when: Window,
    ) -> Verdict {
        let held = self.held(question);
        let certain: Vec<&Held> = held.iter().filter(|held| held.certain).collect();
        let least = question.answer(&certain);
        let most = question.answer(&held.iter().collect::<Vec<_>>());
        let access = told
            .cluster_access
            .as_ref()
            .ok_or("cluster_access: present")?;
        let permission = told.permission.as_ref().ok_or("permission: present")?;
        let is_among = |what: &str, told: Decision, least: bool, most: bool| {
            let is_so = match told {
                Decision::Allowed => most,
                Decision::Denied => !least,
                _ => false,
            };
            holds(is_so, || match (least, most) {
                (true, true) => format!("{what}: ALLOWED"),
                (false, false) => format!("{what}: DENIED"),
                _ => format!("{what}: ALLOWED or DENIED"),
            })
        };
        is_among(
            "cluster_access",
            access.decision(),
            least.cluster_access,
            most.cluster_access,
        )?;
        is_among(
            "permission",
            permission.decision(),
            least.permission,
            most.permission,
        )?;
        let both = [access, permission]
            .iter()
            .all(|layer| layer.decision() == Decision::Allowed);
        let decision = if both {
            Decision::Allowed
        } else {
            Decision::Denied
        };
        agree("decision", &told.decision(), &decision)?;
        let as_of = told.as_of.map(ns).ok_or("as_of: present")?;
        holds(when.may_be_as_of(as_of), || "as_of: now".to_owned())?;
        let holders: Vec<Target> = question
            .principal
            .holders()
            .map(|holder| (question.cluster.clone(), holder))
            .collect();
        let exact = holders.iter().all(|target| self.rests(target));
        if exact {
            let end = told
                .expire_time
                .map_or(End::Never, |time| End::At(ns(time)));
            let expected = if both {
                question.end(&certain)
            } else {
                End::Never
            };
            agree("expire_time", &end, &expected)?;
        }
        if !asked.explain {
            let bare = [access, permission]
                .iter()
                .all(|layer| layer.paths.is_empty() && layer.findings.is_empty());
            return holds(bare && told.principal.is_none(), || {
                "paths, findings and principal: with explain only".to_owned()
            });
        }
        let told_id = told.principal.as_ref().map(|told| told.object_id.clone());
        agree(
            "principal",
            &told_id,
            &Some(question.principal.id.to_string()),
        )?;
        if !exact {
            return Ok(());
        }
        let opening = certain.iter().filter(|held| question.opens(held));
        self.paths_are_told(question, access, opening.copied())?;
        let giving = certain.iter().filter(|held| {
            question
                .scopes
                .iter()
                .any(|scope| question.gives(held, scope))
        });
        self.paths_are_told(question, permission, giving.copied())
    }

    /// Every way in, where the layer lets in.
    fn paths_are_told<'a>(
        &self,
        question: &Question,
        told: &Layer,
        ways: impl Iterator<Item = &'a Held>,
    ) -> Verdict {
        let denied = told.decision() == Decision::Denied;
        let ways: BTreeMap<(Uuid, String, Role), &Held> = ways
            .filter(|_| !denied)
            .map(|held| ((held.holder, held.scope.clone(), held.role), held))
            .collect();
        let mut paths = BTreeSet::new();
        for path in &told.paths {
            let role = Role::ALL
                .into_iter()
                .find(|role| role.display_name() == path.role);
            let role = role.ok_or("a path's role: one of the walk's")?;
            let via = path.via.iter().map(|group| group.object_id.parse());
            let via: Vec<Uuid> = via.collect::<Result<_, _>>().map_err(|_| "via: GUIDs")?;
            let holder = via.last().copied().unwrap_or(question.principal.id);
            let way = (holder, path.scope.to_lowercase(), role);
            if let Some(held) = ways.get(&way) {
                self.path_is_told(question, held, path)?;
            }
            paths.insert(way);
        }
        agree("paths", &paths, &ways.into_keys().collect())
    }

    fn path_is_told(&self, question: &Question, held: &Held, told: &AccessPath) -> Verdict {
        agree("cluster of a path", &told.cluster, &question.cluster)?;
        agree("managed", &told.managed, &held.managed)?;
        let inherited = !held.scope.starts_with(&question.cluster);
        agree("inherited", &told.inherited, &inherited)?;
        let end = told
            .expire_time
            .map_or(End::Never, |time| End::At(ns(time)));
        agree("expire_time of a path", &end, &held.end)?;
        if !held.managed {
            return agree(
                "grant_id of somebody else's",
                &told.grant_id,
                &String::new(),
            );
        }
        let target = (question.cluster.clone(), held.holder);
        let namespace = held
            .scope
            .strip_prefix(&format!("{}/namespaces/", question.cluster));
        let place: Place = (held.role, namespace.map(str::to_owned));
        let calls_for = |grant: &&crate::model::Grant| grant.calls_for().contains(&place);
        let grants: BTreeMap<&String, End> = self
            .live_on(&target)
            .filter(calls_for)
            .map(|grant| (&grant.id, grant.end))
            .collect();
        holds(grants.get(&told.grant_id) == Some(&held.end), || {
            format!(
                "grant_id of a path: a live grant that calls for it, and ends then: of {grants:?}"
            )
        })
    }

    /// Everything that counts for the principal, whoever gave it.
    fn held(&self, question: &Question) -> Vec<Held> {
        let mut held = Vec::new();
        for holder in question.principal.holders() {
            let target = (question.cluster.clone(), holder);
            let of_target = self.grants.values().filter(|grant| grant.is_on(&target));
            let may_stand =
                of_target.filter(|grant| grant.is_live() || grant.state == State::Revoking);
            let mut places: BTreeMap<Place, (bool, Option<End>)> = BTreeMap::new();
            for grant in may_stand {
                let stands = grant.fate == Fate::Live && grant.state == State::Active;
                for place in grant.calls_for() {
                    let (certain, end) = places.entry(place).or_default();
                    *certain |= stands;
                    *end = (*end).max(grant.is_live().then_some(grant.end));
                }
            }
            for (place, (certain, end)) in places {
                if self.is_foreign(&target, &place) {
                    continue;
                }
                held.push(Held {
                    holder,
                    role: place.0,
                    scope: scope(&question.cluster, place.1.as_deref()),
                    end: end.unwrap_or(End::Never),
                    certain,
                    managed: true,
                });
            }
            let theirs = self
                .company
                .foreign
                .iter()
                .filter(|theirs| theirs.holder == holder);
            held.extend(theirs.map(|theirs| Held {
                holder,
                role: theirs.role,
                scope: theirs.scope.clone(),
                end: End::Never,
                certain: true,
                managed: false,
            }));
        }
        held
    }
}
