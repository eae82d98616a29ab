//! The same request again, in other words, or another one under its id; and requests with something wrong.

use aks_access_broker::grpc::proto::{
    Access, ExtendGrantRequest, GrantRequest, GrantSelector, PrincipalRef, RevokeRequest,
};
use prost_types::{Duration, Timestamp};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::draw::{Call, Draw};
use crate::model::Model;

impl Draw {
    /// A request that was accepted before: as it was, in other words, or with something else in it.
    pub(crate) fn again(&mut self, model: &Model) -> Call {
        let recent = self.accepted.len().saturating_sub(200);
        let before = self.accepted[recent..].choose(&mut self.random);
        let before = before.expect("one that was accepted").clone();
        match self.random.random_range(0..10) {
            0..3 => before,
            3 => only_looked_at(before),
            4..6 => self.in_other_words(before),
            6..8 => self.another_under_its_id(&before, model),
            _ => altered(before, &mut self.random),
        }
    }

    fn in_other_words(&mut self, call: Call) -> Call {
        match call {
            Call::Grant(mut asked) => {
                if let Some(access) = &mut asked.access {
                    access.namespaces.shuffle(&mut self.random);
                }
                if let Some(principal) = &mut asked.principal {
                    principal.object_id = principal.object_id.to_uppercase();
                }
                Call::Grant(GrantRequest {
                    request_id: asked.request_id.to_uppercase(),
                    cluster: asked.cluster.to_uppercase(),
                    ..asked
                })
            }
            Call::ExtendGrant(asked) => Call::ExtendGrant(ExtendGrantRequest {
                grant_id: asked.grant_id.to_uppercase(),
                ..asked
            }),
            Call::Revoke(mut asked) => {
                if let Some(selector) = &mut asked.selector {
                    selector.namespaces.shuffle(&mut self.random);
                    let cluster = selector.cluster.take();
                    selector.cluster = cluster.map(|id| id.to_uppercase());
                }
                Call::Revoke(RevokeRequest {
                    grant_id: asked.grant_id.to_uppercase(),
                    ..asked
                })
            }
            other => other,
        }
    }

    /// Request ids are of one name space over all RPCs.
    fn another_under_its_id(&mut self, before: &Call, model: &Model) -> Call {
        let request_id = match before {
            Call::Grant(asked) => asked.request_id.clone(),
            Call::ExtendGrant(asked) => asked.request_id.clone(),
            Call::Revoke(asked) => asked.request_id.clone(),
            _ => String::new(),
        };
        match self.random.random_range(0..3) {
            0 => Call::Grant(GrantRequest {
                request_id,
                ..self.grant(model)
            }),
            1 => Call::ExtendGrant(ExtendGrantRequest {
                request_id,
                ..self.extension(model)
            }),
            _ => Call::Revoke(RevokeRequest {
                request_id,
                grant_id: self.a_grant(model),
                ..RevokeRequest::default()
            }),
        }
    }

    /// The same call with one to three things wrong, or none that matters.
    pub(crate) fn spoilt(&mut self, mut call: Call, model: &Model) -> Call {
        for _ in 0..self.random.random_range(1..4) {
            match &mut call {
                Call::Grant(asked) => self.spoil_grant(asked),
                Call::ExtendGrant(asked) => self.spoil_extension(asked),
                Call::Revoke(asked) => self.spoil_revocation(asked, model),
                Call::GetGrant(asked) => asked.grant_id = self.no_uuid(),
                Call::GetJob(asked) => asked.job_id = self.no_uuid(),
                Call::WatchJob(asked) => asked.job_id = self.no_uuid(),
                Call::ListGrants(asked) => {
                    // Whether a token fits is seen once the query is well-formed.
                    asked.page_token.clear();
                    match self.random.random_range(0..3) {
                        0 => asked.page_size = self.no_size(),
                        1 => asked.states.push(self.no_value()),
                        _ => self.spoil_selector(asked.selector.get_or_insert_default()),
                    }
                }
                Call::ListJobs(asked) => {
                    asked.page_token.clear();
                    match self.random.random_range(0..6) {
                        0 => asked.page_size = self.no_size(),
                        1 => asked.states.push(self.no_value()),
                        2 => asked.kinds.push(self.no_value()),
                        3 => asked.request_id = Some("mine".to_owned()),
                        4 => asked.cluster = Some(self.no_cluster()),
                        _ => self.spoil_principal(&mut asked.principal),
                    }
                }
                Call::ListJobTargets(asked) => {
                    asked.page_token.clear();
                    match self.random.random_range(0..3) {
                        0 => asked.page_size = self.no_size(),
                        1 => asked.states.push(self.no_value()),
                        _ => asked.job_id = self.no_uuid(),
                    }
                }
                Call::CheckAccess(asked) => match self.random.random_range(0..3) {
                    0 => asked.cluster = self.no_cluster(),
                    1 => self.spoil_principal(&mut asked.principal),
                    _ => self.spoil_access(&mut asked.access),
                },
            }
        }
        call
    }

    fn spoil_grant(&mut self, asked: &mut GrantRequest) {
        match self.random.random_range(0..12) {
            0 => asked.request_id = "1".into(),
            1 => self.spoil_principal(&mut asked.principal),
            2 => asked.cluster = self.no_cluster(),
            3 => self.spoil_access(&mut asked.access),
            4 => asked.ttl = Some(self.no_ttl()),
            5 => asked.expire_time = Some(self.no_time()),
            6 => asked.permanent = !asked.permanent,
            7 => asked.justification = "j".repeat(1_025),
            8 => asked.external_key = self.no_text("k", 129),
            9 => asked.on_behalf_of = "the boss".into(),
            _ => {
                let (key, value) = self.no_label();
                asked.labels.insert(key, value);
            }
        }
    }

    fn spoil_extension(&mut self, asked: &mut ExtendGrantRequest) {
        match self.random.random_range(0..7) {
            0 => asked.request_id = "1".into(),
            1 => asked.grant_id = self.no_uuid(),
            2 => asked.ttl = Some(self.no_ttl()),
            3 => asked.expire_time = Some(self.no_time()),
            4 => (asked.ttl, asked.expire_time) = (None, None),
            5 => asked.justification = "ä".repeat(1_025),
            _ => asked.on_behalf_of = "the boss".into(),
        }
    }

    fn spoil_revocation(&mut self, asked: &mut RevokeRequest, model: &Model) {
        match self.random.random_range(0..8) {
            0 => asked.request_id = "1".into(),
            1 => asked.grant_id = self.no_uuid(),
            2 => asked.grant_id = self.a_grant(model),
            3 => asked.selector = Some(GrantSelector::default()),
            4 => self.spoil_selector(asked.selector.get_or_insert_default()),
            5 => asked.max_grants = *[-1, 1_001, 7].choose(&mut self.random).expect("a number"),
            6 => asked.justification = "j".repeat(1_025),
            _ => asked.on_behalf_of = "the boss".into(),
        }
    }

    fn spoil_selector(&mut self, selector: &mut GrantSelector) {
        match self.random.random_range(0..9) {
            0 => self.spoil_principal(&mut selector.principal),
            1 => selector.cluster = Some(self.no_cluster()),
            2 => selector.azure_role = Some(99),
            3 => {
                selector.azure_role = Some(2);
                selector.role_definition_id = Some(self.no_uuid());
            }
            4 => selector.namespaces.push("Not_One".to_owned()),
            6 => selector.external_key = Some(String::new()),
            7 => selector.requested_by = Some(String::new()),
            5 => selector.external_key = Some(self.no_text("k", 129)),
            _ => {
                let (key, value) = self.no_label();
                selector.labels.insert(key, value);
            }
        }
    }

    fn spoil_principal(&mut self, principal: &mut Option<PrincipalRef>) {
        let named = principal.get_or_insert_default();
        match self.random.random_range(0..5) {
            0 => *named = PrincipalRef::default(),
            1 => named.object_id = "ada".into(),
            2 => named.application_id = "40000000-0000-4000-8000-000000000002".into(),
            3 => named.r#type = 9,
            _ => named.user_principal_name = "ada@contoso.example".into(),
        }
        if *named == PrincipalRef::default() || named.object_id.is_empty() {
            *named = PrincipalRef::default();
        }
    }

    fn spoil_access(&mut self, access: &mut Option<Access>) {
        let whole = access.get_or_insert_default();
        match self.random.random_range(0..7) {
            0 => *access = None,
            1 => *whole = Access::default(),
            2 => whole.azure_role = 77,
            3 => (whole.azure_role, whole.role_definition_id) = (2, self.no_uuid()),
            4 => (whole.azure_role, whole.role_definition_id) = (0, "reader".to_owned()),
            5 => whole.namespaces = (0..21).map(|n| format!("n{n}")).collect(),
            _ => whole
                .namespaces
                .extend(["team-a", "Team", "team-a", "-"].map(str::to_owned)),
        }
    }

    fn no_uuid(&mut self) -> String {
        let wrong = ["", "x", "10000000000040008000000000000001", "{}"].choose(&mut self.random);
        (*wrong.expect("a text")).to_owned()
    }

    fn no_cluster(&mut self) -> String {
        let wrong = [
            "aks-production",
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c",
            "/subscriptions/00000000-0000-4000-8000-000000000001/resourceGroups/g",
        ]
        .choose(&mut self.random);
        (*wrong.expect("a text")).to_owned()
    }

    fn no_size(&mut self) -> i32 {
        *[-1, 1_001].choose(&mut self.random).expect("a size")
    }

    fn no_value(&mut self) -> i32 {
        *[0, -1, 99].choose(&mut self.random).expect("a value")
    }

    fn no_text(&mut self, letter: &str, length: usize) -> String {
        if self.chance(50) {
            letter.repeat(length)
        } else {
            format!("{letter}\u{7}")
        }
    }

    fn no_label(&mut self) -> (String, String) {
        let wrong = [("-", ""), ("a b", ""), ("team", "a\nb"), ("ä", "x")];
        let (key, value) = wrong.choose(&mut self.random).expect("a label");
        ((*key).to_owned(), (*value).to_owned())
    }

    fn no_ttl(&mut self) -> Duration {
        let wrong = [
            (0, 0),
            (0, 999_999_999),
            (-1, 0),
            (366 * 86_400, 1),
            (i64::MIN, 0),
            (5, -1),
        ];
        let (seconds, nanos) = *wrong.choose(&mut self.random).expect("a duration");
        Duration { seconds, nanos }
    }

    fn no_time(&mut self) -> Timestamp {
        let now = jiff::Timestamp::now().as_second();
        let wrong = [
            (now - 3_600, 0),
            (now + 400 * 86_400, 0),
            (i64::MAX, 0),
            (now + 3_600, -1),
        ];
        let (seconds, nanos) = *wrong.choose(&mut self.random).expect("a time");
        Timestamp { seconds, nanos }
    }
}

/// The same with `validate_only`, for which a request id counts for nothing.
fn only_looked_at(call: Call) -> Call {
    match call {
        Call::Grant(asked) => Call::Grant(GrantRequest {
            validate_only: true,
            ..asked
        }),
        Call::ExtendGrant(asked) => Call::ExtendGrant(ExtendGrantRequest {
            validate_only: true,
            ..asked
        }),
        Call::Revoke(asked) => Call::Revoke(RevokeRequest {
            validate_only: true,
            ..asked
        }),
        other => other,
    }
}

/// The same but for one field.
fn altered(call: Call, random: &mut impl RngExt) -> Call {
    match call {
        Call::Grant(mut asked) => {
            match random.random_range(0..4) {
                0 => asked.justification.push_str(", really"),
                1 => asked.external_key.push('!'),
                2 => {
                    asked.labels.insert("another".to_owned(), String::new());
                }
                _ => {
                    asked.permanent = true;
                    (asked.ttl, asked.expire_time) = (None, None);
                }
            }
            Call::Grant(asked)
        }
        Call::ExtendGrant(mut asked) => {
            asked.ttl = Some(Duration {
                seconds: 7_777,
                nanos: 0,
            });
            asked.expire_time = None;
            Call::ExtendGrant(asked)
        }
        Call::Revoke(mut asked) => {
            asked.justification.push_str(", really");
            Call::Revoke(asked)
        }
        other => other,
    }
}
