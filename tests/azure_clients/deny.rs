//! Deny assignments and fleets: what is read of them, and the places at which roles are listed because of them.

use aks_access_broker::azure::{DenyFilter, Filter, Place, Purpose};
use aks_access_broker::domain::deny::Effect;
use aks_access_broker::domain::fleet::FleetId;
use aks_access_broker::domain::ids::{Namespace, PrincipalId, Scope};
use aks_access_broker::domain::reason::Reason;
use azure_emulator::{
    DenyAssignment, DenyEffect, EVERYONE, NewRoleAssignment, Operation, Permissions, Settings,
};
use uuid::{Uuid, uuid};

use super::bench::{ALICE, PRODUCTION, azure, calls, cluster, emulator, fault, put, status};
use super::bench::{NAME, at_cluster};

const ENGINEERING: Uuid = uuid!("20000000-0000-4000-8000-000000000001");
const ACTION: &str = "Microsoft.ContainerService/managedClusters/*";

fn scope(id: &str) -> azure_emulator::Scope {
    azure_emulator::Scope::parse(id).expect("a scope")
}

fn fleet() -> FleetId {
    let id = cluster()
        .as_str()
        .replace("managedclusters/aks", "fleets/fleet");
    FleetId::parse(&id).expect("a fleet's id")
}

#[tokio::test]
async fn deny_assignments_are_read_from_all_pages_with_whom_and_what_they_deny() {
    let emulator = emulator(Settings {
        page_size: 1,
        ..Settings::immediate()
    })
    .await;
    let subscription = format!("/subscriptions/{PRODUCTION}");
    let namespace = format!("{}/namespaces/web", cluster());
    let above = DenyAssignment {
        permissions: vec![Permissions {
            data_actions: vec![ACTION.to_owned()],
            not_data_actions: vec!["*/read".to_owned()],
            condition: Some("@Resource[a] StringEquals 'b'".to_owned()),
            ..Permissions::default()
        }],
        principals: vec![EVERYONE],
        exclude_principals: vec![ENGINEERING],
        do_not_apply_to_child_scopes: true,
        ..DenyAssignment::for_everyone(scope(&subscription), "a", &[])
    };
    let here = DenyAssignment {
        principals: vec![ALICE.guid()],
        effect: DenyEffect::Audit,
        condition: Some("@Resource[a] StringEquals 'b'".to_owned()),
        ..DenyAssignment::for_everyone(scope(cluster().as_str()), "b", &[ACTION])
    };
    let below = DenyAssignment::for_everyone(scope(&namespace), "c", &[ACTION]);
    for deny in [above, here, below] {
        emulator.put_deny_assignment(deny).expect("it is made");
    }
    let azure = azure(&emulator);
    let place = Place::Scope(Scope::Cluster(cluster()));
    let list = async |filter| {
        let listed = azure.deny_assignments(&place, filter, Uuid::new_v4()).await;
        let mut listed = listed.expect("a list");
        listed.sort_by(|a, b| a.display_name.cmp(&b.display_name));
        listed
    };
    let all = list(DenyFilter::All).await;
    let names: Vec<&str> = all.iter().map(|it| it.display_name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(list(DenyFilter::AtScope).await, all[..2]);
    let [above, here, below] = all.as_slice() else {
        panic!("{all:?}");
    };

    let engineering = [PrincipalId::new(ENGINEERING)];
    assert!(above.principals.everyone && above.at_its_scope_only && !above.conditional);
    assert!(above.permissions[0].conditional);
    assert_eq!(above.permissions[0].data_actions, [ACTION]);
    assert_eq!(above.permissions[0].not_data_actions, ["*/read"]);
    assert_eq!(above.scope, subscription);
    assert!(
        above.binds(ALICE, &engineering),
        "a member of an excluded group stays bound"
    );
    assert!(!above.binds(engineering[0], &[]));
    assert_eq!((here.effect, here.conditional), (Effect::Audit, true));
    assert!(!here.binds(ALICE, &[]));
    assert_eq!(below.scope, namespace);
    assert!(below.binds(ALICE, &engineering));
    assert!(below.resource_id.contains("/denyAssignments/"));
    assert_eq!(calls(&emulator, Operation::DenyAssignmentList), 5);
}

#[tokio::test]
async fn a_list_that_fails_is_an_error_and_never_a_list_of_none() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let request = Uuid::new_v4();
    let place = Place::Scope(Scope::Cluster(cluster()));
    for (operation, code, reason) in [
        (Operation::DenyAssignmentList, 503, Reason::AzureUnavailable),
        (Operation::DenyAssignmentList, 404, Reason::AzureError),
        (Operation::FleetList, 429, Reason::AzureThrottled),
        (Operation::FleetMemberList, 503, Reason::AzureUnavailable),
    ] {
        fault(&emulator, operation, status(code, "Odd", None));
        let error = match operation {
            Operation::DenyAssignmentList => azure
                .deny_assignments(&place, DenyFilter::AtScope, request)
                .await
                .map(drop),
            Operation::FleetList => azure.fleets(PRODUCTION, request).await.map(drop),
            _ => azure.fleet_members(&fleet(), request).await.map(drop),
        };
        assert_eq!(error.expect_err("an error").reason(), reason, "{operation}");
    }
}

#[tokio::test]
async fn a_broker_that_is_denied_is_told_so_and_goes_on_trying() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let deny = DenyAssignment::for_everyone(
        scope(cluster().as_str()),
        "Nobody assigns",
        &["Microsoft.Authorization/roleAssignments/*"],
    );
    emulator.put_deny_assignment(deny).expect("it is made");
    let error = put(&azure, NAME, &at_cluster()).await.expect_err("denied");
    assert_eq!(error.reason(), Reason::AuthorizationFailed);
    assert!(error.message.contains("'Nobody assigns'"), "{error}");
    assert!(error.message.contains("Exclude the broker's identity"));
    assert!(error.failure(Purpose::Grant).retryable);
}

#[tokio::test]
async fn fleets_and_their_members_are_read_from_all_pages() {
    let emulator = emulator(Settings {
        page_size: 1,
        ..Settings::immediate()
    })
    .await;
    let azure = azure(&emulator);
    let request = Uuid::new_v4();
    let fleets = azure.fleets(PRODUCTION, request).await.expect("a list");
    let [only] = fleets.as_slice() else {
        panic!("{fleets:?}");
    };
    assert_eq!(
        (&only.id, only.name.as_str()),
        (&fleet(), "fleet-production")
    );
    let members = azure.fleet_members(&only.id, request).await;
    let members = members.expect("a list");
    assert_eq!(members.len(), 2);
    assert!(members.iter().any(|member| member.cluster == cluster()));
    assert_eq!(calls(&emulator, Operation::FleetMemberList), 2);

    emulator.delete_fleet(fleet().as_str()).expect("deleted");
    let gone = azure.fleet_members(&fleet(), request).await;
    assert!(gone.expect_err("no fleet").is_gone());
}

#[tokio::test]
async fn roles_are_listed_wherever_aks_asks() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let web = Namespace::parse("web").expect("a namespace");
    let places = [
        Place::Scope(Scope::Cluster(cluster())),
        Place::Scope(Scope::Namespace(cluster(), web.clone())),
        Place::ManagedNamespace(cluster(), web.clone()),
        Place::Fleet(fleet()),
        Place::FleetNamespace(fleet(), web.clone()),
        Place::FleetManagedNamespace(fleet(), web),
    ];
    for place in &places {
        let new = NewRoleAssignment {
            scope: scope(&place.to_string()),
            role: at_cluster().role.guid(),
            principal: ALICE.guid(),
            name: None,
            description: None,
            condition: None,
        };
        let made = emulator.put_role_assignment_as_somebody_else(&new);
        made.expect("it is made");
    }
    for place in &places {
        let listed = azure
            .role_assignments(place, Filter::AtScopeAssignedTo(ALICE), Uuid::new_v4())
            .await
            .expect("a list");
        let here = place.to_string().to_ascii_lowercase();
        assert!(listed.iter().any(|row| row.scope == here), "{place}");
        let mut of_alice = listed.iter().filter(|row| row.principal == ALICE);
        assert!(of_alice.all(|row| here.starts_with(&row.scope)), "{place}");
    }
}
