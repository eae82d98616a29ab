//! What policies' heads alone say: who can surely do nothing, so that nothing has to be looked up for that.

use cedar_policy::Decision as Ruling;

use super::question::{Action, Resource};
use super::{Caller, Fingerprint, Rules};
use crate::domain::ids::ClusterId;

/// A question that policies' heads alone answer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Head {
    of: Heads,
    caller: Fingerprint,
    action: Action,
    /// `None`: anywhere.
    cluster: Option<ClusterId>,
}

/// Which policies' heads.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Heads {
    /// Of those that permit.
    Permits,
    /// Of those whose conditions are about the cluster.
    OfClusters,
    /// Of those whose conditions are about what a role can do.
    OfPower,
    /// Of those that may permit something with what is not the caller's own.
    BeyondOwn,
}

impl Rules {
    /// Whether the answer about this may.
    #[must_use]
    pub fn want_cluster(&self, caller: &Caller, action: Action, cluster: &ClusterId) -> bool {
        self.look_at_clusters() && self.fits(Heads::OfClusters, caller, action, Some(cluster))
    }

    /// Whether the answer about this may hang on what a role can do.
    #[must_use]
    pub fn want_power(&self, caller: &Caller, action: Action, cluster: &ClusterId) -> bool {
        self.fits(Heads::OfPower, caller, action, Some(cluster))
    }

    /// Whether a caller might do something on a cluster, whatever the conditions say that look at more than the caller. Where
    /// not it surely may not, and nothing has to be looked up for that.
    #[must_use]
    pub fn might(&self, caller: &Caller, action: Action, cluster: &ClusterId) -> bool {
        self.fits(Heads::Permits, caller, action, Some(cluster))
    }

    /// Whether a caller might do something with what is neither about it nor was asked for by it, on a cluster; `None`:
    /// on any. Where not, no policy permits that, and others' rows need not be read.
    #[must_use]
    pub fn might_beyond_own(
        &self,
        caller: &Caller,
        action: Action,
        cluster: Option<&ClusterId>,
    ) -> bool {
        self.fits(Heads::BeyondOwn, caller, action, cluster)
    }

    /// Whether the head of one of these policies fits. What cannot be told fits.
    fn fits(
        &self,
        of: Heads,
        caller: &Caller,
        action: Action,
        cluster: Option<&ClusterId>,
    ) -> bool {
        let head = Head {
            of,
            caller: caller.fingerprint(),
            action,
            cluster: cluster.cloned(),
        };
        if let Some(fits) = self.heads.get(&head) {
            return fits;
        }
        let policies = match of {
            Heads::Permits => &self.asks.permits,
            Heads::OfClusters => &self.asks.of_clusters,
            Heads::OfPower => &self.asks.of_power,
            Heads::BeyondOwn if cluster.is_none() => &self.asks.beyond_own_anywhere,
            Heads::BeyondOwn => &self.asks.beyond_own,
        };
        let resource = cluster.map_or(Resource::Broker, |id| Resource::Cluster { id, known: None });
        let asked = self.request(caller, action, resource, None);
        let fits = asked.map_or(true, |(request, entities)| {
            let response = self.authorizer.is_authorized(&request, policies, &entities);
            response.decision() == Ruling::Allow
        });
        self.heads.insert(head, fits);
        fits
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::source::Source;
    use super::*;
    use crate::domain::cluster::tests::healthy;

    /// A policy's head and conditions, and whether it may let a caller with the role `Reader`, and one without, do
    /// something with what is others'.
    const POLICIES: &[(&str, [bool; 2])] = &[
        ("permit (principal, action, resource);", [true, true]),
        (
            "permit (principal in AksAccess::AppRole::\"Reader\", action, resource);",
            [true, false],
        ),
        (
            "permit (principal, action, resource) when { principal in AksAccess::AppRole::\"Reader\" };",
            [true, false],
        ),
        (
            "permit (principal, action == AksAccess::Action::\"ListGrants\", resource) when { resource is AksAccess::Cluster && resource.location == \"westeurope\" && \
             principal in AksAccess::AppRole::\"Reader\" };",
            [true, false],
        ),
        (
            "permit (principal, action, resource) unless { principal in AksAccess::AppRole::\"Reader\" };",
            [false, true],
        ),
        // What goes by the cluster alone may let anybody through.
        (
            "permit (principal, action == AksAccess::Action::\"ListGrants\", resource) when { resource is AksAccess::Cluster && resource.location == \"westeurope\" };",
            [true, true],
        ),
        (
            "permit (principal, action == AksAccess::Action::\"ListGrants\", resource) when { context.to_self };",
            [false, false],
        ),
        (
            "permit (principal, action == AksAccess::Action::\"ListGrants\", resource) \
             when { context.to_self || context.requested_by_self };",
            [false, false],
        ),
        (
            "permit (principal, action == AksAccess::Action::\"ListGrants\", resource) \
             when { resource is AksAccess::Cluster && context.requested_by_self };",
            [false, false],
        ),
        // These are not only about one's own.
        (
            "permit (principal, action == AksAccess::Action::\"ListGrants\", resource) \
             when { context.to_self || resource is AksAccess::Cluster };",
            [true, true],
        ),
        (
            "permit (principal, action == AksAccess::Action::\"ListGrants\", resource) unless { context.to_self };",
            [true, true],
        ),
        (
            "permit (principal, action == AksAccess::Action::\"ListGrants\", resource) when { !context.to_self };",
            [true, true],
        ),
        // A policy that forbids lets nobody through.
        ("forbid (principal, action, resource);", [false, false]),
    ];

    #[test]
    fn a_policy_that_may_let_somebody_at_what_is_others_is_never_left_out() {
        let plain = Caller::application(Uuid::nil(), Uuid::from_u128(1), Uuid::from_u128(2));
        let reader = plain
            .clone()
            .with(["Reader".to_owned()].into(), [].into(), false);
        let cluster = healthy().id;
        for (policy, expected) in POLICIES {
            let rules = Rules::new(Source::of("test.cedar", policy)).unwrap();
            for place in [None, Some(&cluster)] {
                let might = [&reader, &plain]
                    .map(|caller| rules.might_beyond_own(caller, Action::ListGrants, place));
                assert_eq!(might, *expected, "{policy}");
            }
        }
    }

    #[test]
    fn a_place_that_a_policy_names_counts_there_and_where_no_place_is_asked_about() {
        let cluster = healthy().id;
        let policy = format!(
            "permit (principal, action, resource in AksAccess::Subscription::\"{}\");",
            cluster.subscription()
        );
        let rules = Rules::new(Source::of("test.cedar", &policy)).unwrap();
        let caller = Caller::application(Uuid::nil(), Uuid::from_u128(1), Uuid::from_u128(2));
        let other = cluster.as_str().replace(
            &cluster.subscription().to_string(),
            &Uuid::nil().to_string(),
        );
        let other = ClusterId::parse(&other).unwrap();
        let might = [None, Some(&cluster), Some(&other)]
            .map(|place| rules.might_beyond_own(&caller, Action::ListGrants, place));
        assert_eq!(might, [true, true, false]);
    }
}
