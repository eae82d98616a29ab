//! What our own record changes about what Azure's lists say.

use super::*;
use crate::domain::ids::ClusterId;
use crate::domain::ownership::assignment_name;
use crate::domain::role::BuiltInRole;

const ME: PrincipalId = PrincipalId::new(Uuid::from_u128(7));
const INSTANCE: InstanceId = InstanceId::new(Uuid::from_u128(9));
const LAG: SignedDuration = SignedDuration::from_mins(10);

fn at() -> RoleAtScope {
    RoleAtScope {
        role: BuiltInRole::ClusterUser.id(),
        scope: Scope::Cluster(
            ClusterId::parse(
                "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/\
                 Microsoft.ContainerService/managedClusters/prod",
            )
            .unwrap(),
        ),
    }
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn own(present: bool, changed: i64) -> OwnRecord {
    OwnRecord {
        instance: INSTANCE,
        cluster_uid: String::new(),
        effects: vec![OwnEffect {
            name: assignment_name(INSTANCE, &at(), ME, 0),
            at: at(),
            present,
            changed: second(changed),
            grants: vec![GrantId::new(Uuid::from_u128(3))],
            expiry: Expiry::Never,
        }],
    }
}

fn listed(name: AssignmentName, description: Option<String>) -> RoleAssignment {
    RoleAssignment {
        name,
        scope: at().scope.to_string(),
        role: at().role,
        principal: ME,
        principal_type: Some(PrincipalType::User),
        description,
        condition: None,
    }
}

fn names(list: Vec<RoleAssignment>, own: &OwnRecord, now: i64) -> Vec<AssignmentName> {
    let overlaid = overlaid(list, ME, own, second(now), LAG);
    overlaid
        .into_iter()
        .map(|assignment| assignment.name)
        .collect()
}

#[test]
fn within_the_lag_our_own_record_beats_the_list_and_after_it_the_list_beats_us() {
    let ours = assignment_name(INSTANCE, &at(), ME, 0);
    let shown = || vec![listed(ours, None), listed(ours, None)];
    assert_eq!(names(vec![], &own(true, 1_000), 1_599), [ours]);
    assert_eq!(names(vec![], &own(true, 1_000), 1_600), []);
    assert_eq!(names(shown(), &own(false, 1_000), 1_599), []);
    assert_eq!(names(shown(), &own(false, 1_000), 1_600), [ours]);
    assert_eq!(names(shown(), &own(true, 1_000), 1_000), [ours]);
}

#[test]
fn what_others_assigned_is_left_alone_by_our_own_record() {
    let others = AssignmentName::new(Uuid::from_u128(5));
    let shown = vec![listed(others, None)];
    assert_eq!(names(shown, &own(false, 1_000), 1_001), [others]);
}

#[test]
fn an_assignment_is_ours_by_name_and_description_together() {
    let nothing = OwnRecord {
        effects: Vec::new(),
        ..own(true, 0)
    };
    let described = |instance: InstanceId| {
        let description = Description {
            instance,
            expiry: Expiry::At(second(5_000)),
            grants: vec![GrantId::new(Uuid::from_u128(3))],
        };
        Some(description.write())
    };
    let second_name = assignment_name(INSTANCE, &at(), ME, 1);
    let found = managed(&listed(second_name, described(INSTANCE)), &nothing).unwrap();
    assert_eq!(found.expiry, Expiry::At(second(5_000)));
    let strangers_name = AssignmentName::new(Uuid::from_u128(5));
    let another_broker = InstanceId::new(Uuid::from_u128(10));
    for foreign in [
        listed(strangers_name, described(INSTANCE)),
        listed(second_name, described(another_broker)),
        listed(second_name, Some("made by hand".to_owned())),
        listed(second_name, None),
    ] {
        assert_eq!(managed(&foreign, &nothing), None, "{foreign:?}");
    }
    let recorded = assignment_name(INSTANCE, &at(), ME, 0);
    assert!(managed(&listed(recorded, None), &own(true, 0)).is_some());
}
