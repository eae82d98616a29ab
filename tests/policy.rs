//! Nobody does what no policy allows, or learns from a refusal what is there; the trail says who tried, and which policy
//! stood in the way.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::Duration;

use aks_access_broker::grpc::proto::batch_check_access_response::item::Result as Outcome;
use aks_access_broker::grpc::proto::{
    AzureRole, BatchCheckAccessRequest, CheckAccessRequest, GrantRequest, GrantSelector,
    ListAccessRequest, ListAuditEventsRequest, ListGrantsRequest, ListJobsRequest, PrincipalRef,
    PrincipalType,
};
use azure_emulator::Operation;
use support::ask::{
    self, access, active, extension, lasting, over, permanent, principal, revocation,
    revocation_of, user,
};
use support::broker::{BrokerProcess, Client};
use support::raw::{RawClient, SERVED, framed};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const ENGINEERING: Uuid = uuid!("20000000-0000-4000-8000-000000000001");
const DEPLOY_BOT: Uuid = uuid!("30000000-0000-4000-8000-000000000002");
const PAYMENTS: Uuid = uuid!("20000000-0000-4000-8000-000000000004");
const STRANGER: Uuid = uuid!("30000000-0000-4000-8000-000000000006");
const HOUR: Duration = Duration::from_hours(1);

/// A broker with the policies that it brings along.
async fn world() -> (World, BrokerProcess) {
    let world = World::start().await;
    let config = world.config_of_policies(&Timing::default(), None);
    let broker = BrokerProcess::start(&config).await;
    (world, broker)
}

fn of(world: &World, broker: &BrokerProcess, bearer: Uuid) -> Client {
    broker.client_with(Some(&token(&world.emulator, bearer)))
}

async fn refused(client: &mut Client, wish: GrantRequest) -> Refusal {
    Refusal::from(client.grant(wish).await)
}

fn reader(whom: Uuid, cluster: &str) -> GrantRequest {
    lasting(whom, cluster, access(AzureRole::RbacReader, &[]), HOUR)
}

#[tokio::test]
async fn a_stranger_is_refused_everything_and_told_nothing() {
    let (world, broker) = world().await;
    let cluster = world.cluster("aks-production");
    let granted = active(&mut broker.client(), reader(ALICE, &cluster)).await;
    let mut stranger = of(&world, &broker, STRANGER);
    let written = world.count(Operation::RoleAssignmentWrite);

    let refusal = refused(&mut stranger, reader(BOB, &cluster)).await;
    assert_eq!(
        refusal.kind(),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    // The same words, whether there is such a cluster or not.
    let elsewhere = cluster.replace("aks-production", "aks-imagined");
    let other = refused(&mut stranger, reader(BOB, &elsewhere)).await;
    assert_eq!(
        other.message.replace("aks-imagined", "aks-production"),
        refusal.message
    );
    assert_eq!(other.metadata, refusal.metadata);
    // And whether there is such a principal.
    let nobody = GrantRequest {
        principal: Some(PrincipalRef {
            user_principal_name: "nobody@contoso.example".to_owned(),
            ..PrincipalRef::default()
        }),
        ..reader(BOB, &cluster)
    };
    assert_eq!(
        refused(&mut stranger, nobody).await.message,
        refusal.message
    );

    let hidden = (Code::NotFound, "GRANT_NOT_FOUND");
    let answer = stranger
        .extend_grant(extension(&granted.grant_id, HOUR * 2))
        .await;
    assert_eq!(Refusal::from(answer).kind(), hidden);
    let answer = stranger.revoke(revocation(&granted.grant_id)).await;
    assert_eq!(Refusal::from(answer).kind(), hidden);
    let everything = revocation_of(GrantSelector {
        cluster: Some(cluster.clone()),
        ..GrantSelector::default()
    });
    let answer = Refusal::from(stranger.revoke(everything).await);
    assert_eq!(answer.kind(), (Code::PermissionDenied, "PERMISSION_DENIED"));
    let listed = stranger.list_grants(ListGrantsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().grants, []);

    // Nothing was done, and all that was refused is written down.
    assert_eq!(world.count(Operation::RoleAssignmentWrite), written);
    assert_eq!(
        ask::the_grant(&mut broker.client(), &granted.grant_id).await,
        granted
    );
    let refusals = world.refusals().await;
    let rpcs: Vec<&str> = refusals.iter().map(|refusal| refusal[1].as_str()).collect();
    assert_eq!(
        rpcs,
        ["Grant", "Grant", "Grant", "ExtendGrant", "Revoke", "Revoke"]
    );
    for [actor, _, reason, policies] in &refusals {
        assert!(actor.starts_with("application/40000000-0000-4000-8000-000000000006@"));
        assert_eq!(
            (reason.as_str(), policies.as_str()),
            ("PERMISSION_DENIED", "")
        );
    }
}

#[tokio::test]
async fn what_a_policy_forbids_is_refused_without_its_name_which_the_trail_has() {
    let (world, broker) = world().await;
    let cluster = world.cluster("aks-production");
    let mut platform = broker.client();
    let own = uuid!("30000000-0000-4000-8000-000000000003");
    let (service, group) = (PrincipalType::ServicePrincipal, PrincipalType::Group);
    let to = |whom: PrincipalRef| GrantRequest {
        principal: Some(whom),
        ..reader(BOB, &cluster)
    };
    let for_whom = |wish: GrantRequest, whom: &str| GrantRequest {
        on_behalf_of: whom.to_owned(),
        ..wish
    };
    let admin = |ttl, justification: &str| GrantRequest {
        justification: justification.to_owned(),
        ..lasting(BOB, &cluster, access(AzureRole::RbacClusterAdmin, &[]), ttl)
    };
    let cases = [
        ("never-to-oneself", to(principal(own, service))),
        // By the name that only the directory knows it by.
        (
            "never-to-oneself",
            to(PrincipalRef {
                application_id: "40000000-0000-4000-8000-000000000003".to_owned(),
                ..PrincipalRef::default()
            }),
        ),
        (
            "never-to-the-beneficiary",
            for_whom(to(user(ALICE)), "Alice@contoso.example"),
        ),
        (
            "never-to-the-beneficiary",
            for_whom(to(user(ALICE)), &ALICE.to_string()),
        ),
        // She is in it, and so is whoever she shares it with.
        (
            "never-to-the-beneficiary",
            for_whom(to(principal(ENGINEERING, group)), "alice@contoso.example"),
        ),
        ("cluster-admin-is-short-and-justified", admin(HOUR, "")),
        // Nobody can see it.
        (
            "cluster-admin-is-short-and-justified",
            admin(HOUR, "\u{200b}\u{3164}\u{202e}"),
        ),
        (
            "cluster-admin-is-short-and-justified",
            admin(HOUR * 9, "INC-4711"),
        ),
        (
            "cluster-admin-is-short-and-justified",
            GrantRequest {
                justification: "INC-4711".to_owned(),
                ..permanent(BOB, &cluster, access(AzureRole::RbacClusterAdmin, &[]))
            },
        ),
    ];
    for (policy, wish) in cases {
        for validate_only in [false, true] {
            let wish = GrantRequest {
                validate_only,
                ..wish.clone()
            };
            let refusal = refused(&mut platform, wish.clone()).await;
            assert_eq!(
                refusal.kind(),
                (Code::PermissionDenied, "PERMISSION_DENIED"),
                "{wish:?}"
            );
            for word in ["never", "short", "forbid", "justified"] {
                assert!(!refusal.message.contains(word), "{}", refusal.message);
            }
            let refusals = world.refusals().await;
            let last = refusals.last().unwrap();
            assert_eq!(
                last[1..],
                ["Grant", "PERMISSION_DENIED", policy],
                "{wish:?}"
            );
        }
    }
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 0);

    // What is allowed says by which policy, too.
    let admin = active(&mut platform, admin(HOUR * 8, "INC-4711")).await;
    let trail = world.trail().await;
    let accepted = trail
        .iter()
        .find(|event| event["grant"] == admin.grant_id.as_str());
    let accepted = accepted.unwrap();
    assert_eq!(accepted["outcome"], "ACCEPTED");
    assert_eq!(accepted["details"]["policies"], "grant");
    assert_eq!(accepted["details"]["justification"], "INC-4711");
    assert_eq!(accepted["details"]["end"], "after 28800 s");
    // Extensions count from when it was made.
    let answer = platform
        .extend_grant(extension(&admin.grant_id, HOUR * 8))
        .await;
    assert_eq!(
        Refusal::from(answer).kind(),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
}

/// Its key names a grant that was made a while ago: a later end counts from then.
#[tokio::test]
async fn a_grant_that_is_asked_for_again_under_its_key_lasts_no_longer_than_allowed() {
    let (world, broker) = world().await;
    let mut platform = broker.client();
    let wish = |ttl| GrantRequest {
        justification: "INC-4711".to_owned(),
        external_key: "INC-4711".to_owned(),
        ..lasting(
            BOB,
            &world.cluster("aks-production"),
            access(AzureRole::RbacClusterAdmin, &[]),
            ttl,
        )
    };
    active(&mut platform, wish(HOUR)).await;
    let refusal = refused(&mut platform, wish(HOUR * 8)).await;
    assert_eq!(refusal.reason, "PERMISSION_DENIED");
    active(&mut platform, wish(HOUR * 7)).await;
}

/// A service principal in a group asks for the group.
#[tokio::test]
async fn nobody_grants_to_a_group_that_it_is_in() {
    let world = World::start().await;
    let policies = world.dir.path().join("more-policies");
    std::fs::create_dir(&policies).unwrap();
    let shipped = include_str!("../policies/default.cedar");
    std::fs::write(policies.join("default.cedar"), shipped).unwrap();
    let bot = "permit (principal is AksAccess::Application, action, resource) when { principal.object_id == \
               \"30000000-0000-4000-8000-000000000002\" };";
    std::fs::write(policies.join("bot.cedar"), bot).unwrap();
    let config = world.config_of_policies(&Timing::default(), Some(&policies));
    let broker = BrokerProcess::start(&config).await;
    let mut bot = of(&world, &broker, DEPLOY_BOT);
    let cluster = world.cluster("aks-production");
    // Directly in one of them, and through it in the other.
    for group in [PAYMENTS, ENGINEERING] {
        let wish = GrantRequest {
            principal: Some(principal(group, PrincipalType::Group)),
            ..reader(BOB, &cluster)
        };
        assert_eq!(refused(&mut bot, wish).await.reason, "PERMISSION_DENIED");
        // Nor does it help to say that it is a person.
        assert_eq!(
            refused(&mut bot, reader(group, &cluster)).await.reason,
            "PERMISSION_DENIED"
        );
    }
    active(&mut bot, reader(BOB, &cluster)).await;
}

/// Whether somebody is in the directory is not for those who may ask about nobody.
#[tokio::test]
async fn the_directory_is_not_searched_through_refusals() {
    let (world, broker) = world().await;
    let cluster = world.cluster("aks-production");
    let granted = active(&mut broker.client(), reader(BOB, &cluster)).await;
    let mut stranger = of(&world, &broker, STRANGER);
    let named = |name: &str| PrincipalRef {
        user_principal_name: format!("{name}@contoso.example"),
        ..PrincipalRef::default()
    };
    let mut answers = Vec::new();
    for name in ["bob", "nobody"] {
        let selector = || GrantSelector {
            principal: Some(named(name)),
            ..GrantSelector::default()
        };
        let grants = ListGrantsRequest {
            selector: Some(selector()),
            ..ListGrantsRequest::default()
        };
        let jobs = ListJobsRequest {
            principal: Some(named(name)),
            ..ListJobsRequest::default()
        };
        let everything = ListAccessRequest {
            principal: Some(named(name)),
            ..ListAccessRequest::default()
        };
        let for_whom = GrantRequest {
            on_behalf_of: format!("{name}@contoso.example"),
            ..reader(ALICE, &cluster)
        };
        let mut longer = extension(&granted.grant_id, HOUR * 2);
        longer.on_behalf_of = format!("{name}@contoso.example");
        let events = ListAuditEventsRequest {
            principal: Some(named(name)),
            ..ListAuditEventsRequest::default()
        };
        let events = stranger
            .list_audit_events(events)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(events.events, []);
        let grants = stranger.list_grants(grants).await.unwrap().into_inner();
        let jobs = stranger.list_jobs(jobs).await.unwrap().into_inner();
        assert_eq!((grants.grants.len(), jobs.jobs.len()), (0, 0));
        answers.push([
            Refusal::from(stranger.revoke(revocation_of(selector())).await),
            Refusal::from(stranger.list_access(everything).await),
            Refusal::from(stranger.grant(for_whom).await),
            Refusal::from(stranger.extend_grant(longer).await),
        ]);
    }
    assert_eq!(answers[0], answers[1]);
    // Who may, hears of it.
    let mut platform = broker.client();
    let for_whom = GrantRequest {
        on_behalf_of: "nobody@contoso.example".to_owned(),
        ..reader(ALICE, &cluster)
    };
    let refusal = refused(&mut platform, for_whom).await;
    assert_eq!(refusal.kind(), (Code::NotFound, "PRINCIPAL_NOT_FOUND"));
}

/// One that has asked for nothing and may end nothing makes no jobs.
#[tokio::test]
async fn whoever_may_revoke_nothing_has_no_job_made() {
    let (world, broker) = world().await;
    let mut stranger = of(&world, &broker, STRANGER);
    let kept = world.redis.everything().await;
    let everything = revocation_of(GrantSelector {
        requested_by: Some("nobody".to_owned()),
        ..GrantSelector::default()
    });
    let refusal = Refusal::from(stranger.revoke(everything.clone()).await);
    assert_eq!(
        refusal.kind(),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    assert_eq!(world.redis.everything().await, kept);
    // Who may revoke has one, and may send it again.
    let mut platform = broker.client();
    for _ in 0..2 {
        let answer = platform.revoke(everything.clone()).await.unwrap();
        let job = over(&mut platform, &answer.into_inner().job.unwrap().job_id).await;
        assert_eq!(job.total_targets, 0);
    }
}

/// A batch of a thousand refusals is one event.
#[tokio::test]
async fn a_batchs_refusals_are_one_event() {
    let (world, broker) = world().await;
    let check = CheckAccessRequest {
        principal: Some(user(BOB)),
        cluster: world.cluster("aks-production"),
        access: Some(access(AzureRole::RbacReader, &[])),
        ..CheckAccessRequest::default()
    };
    let batch = BatchCheckAccessRequest {
        requests: vec![check; 100],
        ..BatchCheckAccessRequest::default()
    };
    let mut stranger = of(&world, &broker, STRANGER);
    let answer = stranger
        .batch_check_access(batch)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.items.len(), 100);
    let trail = world.trail().await;
    assert_eq!(trail.len(), 1);
    assert_eq!(trail[0]["details"]["refused"], "100");
}

#[tokio::test]
async fn a_person_without_a_role_checks_and_gives_up_what_is_its_own() {
    let (world, broker) = world().await;
    let cluster = world.cluster("aks-production");
    let mut platform = broker.client();
    let own = active(&mut platform, reader(ALICE, &cluster)).await;
    let other = active(&mut platform, reader(BOB, &cluster)).await;
    let group = GrantRequest {
        principal: Some(principal(ENGINEERING, PrincipalType::Group)),
        ..reader(BOB, &cluster)
    };
    active(&mut platform, group).await;

    let mut alice = of(&world, &broker, ALICE);
    let question = |whom: PrincipalRef| CheckAccessRequest {
        principal: Some(whom),
        cluster: cluster.clone(),
        access: Some(access(AzureRole::RbacReader, &[])),
        ..CheckAccessRequest::default()
    };
    let named = |name: &str| PrincipalRef {
        user_principal_name: name.to_owned(),
        ..PrincipalRef::default()
    };
    for whom in [user(ALICE), named("alice@contoso.example")] {
        alice.check_access(question(whom)).await.expect("an answer");
    }
    for whom in [
        user(BOB),
        named("bob@contoso.example"),
        named("no@contoso.example"),
    ] {
        let refusal = Refusal::from(alice.check_access(question(whom)).await);
        assert_eq!(
            refusal.kind(),
            (Code::PermissionDenied, "PERMISSION_DENIED")
        );
    }
    // What she is given through a group is not hers to see or to give up.
    let listed = alice
        .list_grants(ListGrantsRequest::default())
        .await
        .unwrap();
    let listed: Vec<String> = listed
        .into_inner()
        .grants
        .into_iter()
        .map(|it| it.grant_id)
        .collect();
    assert_eq!(listed, std::slice::from_ref(&own.grant_id));
    let refusal = Refusal::from(alice.revoke(revocation(&other.grant_id)).await);
    assert_eq!(refusal.reason, "GRANT_NOT_FOUND");
    let answer = alice
        .revoke(revocation(&own.grant_id))
        .await
        .expect("accepted");
    over(&mut alice, &answer.into_inner().job.unwrap().job_id).await;
    assert_eq!(
        ask::the_grant(&mut platform, &other.grant_id).await.state,
        other.state
    );
}

/// Each RPC that is served asks the policies.
#[tokio::test]
async fn without_a_policy_nothing_is_allowed() {
    let world = World::start().await;
    let policies = world.dir.path().join("none");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(
        policies.join("none.cedar"),
        "forbid (principal, action, resource);",
    )
    .unwrap();
    let config = world.config_of_policies(&Timing::default(), Some(&policies));
    let broker = BrokerProcess::start(&config).await;
    let raw = RawClient::new(&broker);
    for rpc in SERVED {
        // An empty message asks for nothing that there is: lists are empty, the rest is invalid.
        let answer = raw.refusal(rpc, framed(&[]), &[]).await;
        let code = answer.map(|status| status.code());
        assert!(
            matches!(code, None | Some(Code::InvalidArgument)),
            "{rpc}: {code:?}"
        );
    }
    let mut client = broker.client();
    let cluster = world.cluster("aks-production");
    assert_eq!(
        refused(&mut client, reader(BOB, &cluster)).await.reason,
        "PERMISSION_DENIED"
    );
    let clusters = client
        .list_clusters(aks_access_broker::grpc::proto::ListClustersRequest::default())
        .await;
    assert_eq!(clusters.unwrap().into_inner().clusters, []);
}

/// What nobody could find in the trail afterwards is not decided: the caller hears that the store is away.
#[tokio::test]
async fn i10_a_refusal_that_cannot_be_written_down_is_no_answer() {
    let (mut world, broker) = world().await;
    let mut stranger = of(&world, &broker, STRANGER);
    let wish = reader(BOB, &world.cluster("aks-production"));
    assert_eq!(
        refused(&mut stranger, wish.clone()).await.reason,
        "PERMISSION_DENIED"
    );
    world.redis.kill().await;
    let refusal = refused(&mut stranger, wish).await;
    assert_eq!(refusal.kind(), (Code::Unavailable, "STORE_UNAVAILABLE"));
    let check = CheckAccessRequest {
        principal: Some(user(BOB)),
        cluster: world.cluster("aks-production"),
        access: Some(access(AzureRole::RbacReader, &[])),
        ..CheckAccessRequest::default()
    };
    let refusal = Refusal::from(stranger.check_access(check.clone()).await);
    assert_eq!(refusal.kind(), (Code::Unavailable, "STORE_UNAVAILABLE"));
    // Of a batch, those hear of it that were refused.
    let batch = BatchCheckAccessRequest {
        requests: vec![check, CheckAccessRequest::default()],
        ..BatchCheckAccessRequest::default()
    };
    let answered = stranger.batch_check_access(batch).await.expect("answers");
    let items = answered.into_inner().items.into_iter();
    let reasons: Vec<String> = items
        .map(|item| match item.result.expect("a result") {
            Outcome::Error(failure) => failure.reason,
            Outcome::Response(response) => panic!("{response:?}"),
        })
        .collect();
    assert_eq!(reasons, ["STORE_UNAVAILABLE", "INVALID_REQUEST"]);
}
