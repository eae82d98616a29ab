//! A grant whose record is damaged: a revocation by selector skips it, ends the others, and counts it as left.

use std::fs;

use aks_access_broker::grpc::proto::{GrantSelector, grant, job};
use tonic::Code;
use uuid::Uuid;

use super::support::broker::BrokerProcess;
use super::support::refusal::Refusal;
use super::{
    BOB, Client, RevokeRequest, Timing, World, active, ask, nothing_is_deleted, reader, revocation,
    revocation_of, revoked,
};

/// Everything on one cluster.
fn here(world: &World) -> RevokeRequest {
    revocation_of(GrantSelector {
        cluster: Some(world.cluster("aks-production")),
        ..GrantSelector::default()
    })
}

async fn damage(world: &World, command: &str, words: &[&[u8]]) {
    let mut connection = world.redis.connection().await;
    let damage = redis::cmd(command).arg(words).to_owned();
    damage.exec_async(&mut connection).await.expect("damage");
}

/// The key of a grant whose record the test damages, and Bob's grant, which stays sound. The damaged grant is each time
/// another principal's, because the broker cannot work on a target that has a damaged grant.
async fn somebodys_and_bobs(world: &World, client: &mut Client) -> (String, String) {
    let cluster = world.cluster("aks-production");
    let somebodys = active(client, reader(Uuid::new_v4(), &cluster)).await;
    let bobs = active(client, reader(BOB, &cluster)).await;
    let key = format!("{{aab:main}}:grant:{}", somebodys.grant_id);
    (key, bobs.grant_id)
}

#[tokio::test]
async fn i5_an_unreadable_grant_does_not_stop_others_from_ending_and_counts_as_left() {
    let world = World::start().await;
    let log = world.dir.path().join("broker.log");
    let config = world.config_with(&Timing::default(), &[]);
    let broker = BrokerProcess::start_with_log(&config, &log).await;
    let mut client = broker.client();
    for (what, command, words) in [
        ("another format", "HSET", &[&b"v"[..], b"99"][..]),
        ("no text", "HSET", &[b"body", b"\xff\xfe"]),
        ("no JSON", "HSET", &[b"body", b"{"]),
        ("no state", "HDEL", &[b"state"]),
        ("no hash", "SET", &[b"nothing"]),
        ("no record", "DEL", &[]),
    ] {
        let (key, bobs) = somebodys_and_bobs(&world, &mut client).await;
        let words = [&[key.as_bytes()], words].concat();
        damage(&world, command, &words).await;

        let plan = RevokeRequest {
            validate_only: true,
            ..here(&world)
        };
        let plan = client.revoke(plan).await;
        let answer = revoked(&mut client, here(&world)).await;
        assert_eq!(
            (answer.matched_grants, answer.left_grants),
            (1, 1),
            "{what}"
        );
        let job = ask::over(&mut client, &answer.job.unwrap().job_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{what}: {job:?}");
        let bobs = ask::the_grant(&mut client, &bobs).await;
        assert_eq!(bobs.state(), grant::State::Revoked, "{what}");
        let told = fs::read_to_string(&log).expect("the log");
        assert!(told.contains(&key), "{what}: {key} is not in {told}");
        let plan = plan.expect("a plan").into_inner();
        assert_eq!((plan.matched_grants, plan.left_grants), (1, 1), "{what}");

        // Only the damaged grant still matches. The caller must not believe that it is gone.
        let refusal = Refusal::from(client.revoke(here(&world)).await);
        let expected = (Code::Internal, "STORE_UNREADABLE");
        assert_eq!(refusal.kind(), expected, "{what}: {refusal:?}");
        // The next damage is to another grant, and this one's places in the lists would count as well.
        let mut connection = world.redis.connection().await;
        let lists: Vec<String> = redis::cmd("KEYS")
            .arg("{aab:main}:grants:live:*")
            .query_async(&mut connection)
            .await
            .expect("the lists");
        for list in lists {
            damage(&world, "DEL", &[list.as_bytes()]).await;
        }
    }
}

/// The same for a REVOKING grant, because it may still give access.
#[tokio::test]
async fn i5_an_unreadable_revoking_grant_counts_as_left() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let (key, bobs) = somebodys_and_bobs(&world, &mut client).await;
    nothing_is_deleted(&world);
    let (_, somebodys) = key.rsplit_once(':').expect("an id");
    revoked(&mut client, revocation(somebodys)).await;
    damage(&world, "HSET", &[key.as_bytes(), b"v", b"99"]).await;

    let answer = revoked(&mut client, here(&world)).await;
    assert_eq!((answer.matched_grants, answer.left_grants), (1, 1));
    world.emulator.clear_faults();
    let job = ask::over(&mut client, &answer.job.unwrap().job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let bobs = ask::the_grant(&mut client, &bobs).await;
    assert_eq!(bobs.state(), grant::State::Revoked);
}
