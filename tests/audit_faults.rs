//! The trail keeps what was decided and done whatever goes wrong with it: an answer that is lost (I10).
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::sync::Arc;

use aks_access_broker::grpc::proto::AzureRole;
use support::ask::{access, permanent};
use support::broker::BrokerProcess;
use support::proxy::{Held, Proxy, Trigger};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const STRANGER: Uuid = uuid!("30000000-0000-4000-8000-000000000006");

/// The connection breaks when the refusal is written down and the answer is on its way: it is sent again.
#[tokio::test]
async fn i10_a_refusal_whose_answer_was_lost_is_in_the_trail_once() {
    let world = World::start().await;
    let trigger: Trigger = Arc::new(|sent: &[u8]| {
        let sent = String::from_utf8_lossy(sent);
        sent.contains("REFUSED")
    });
    let redis = ([127, 0, 0, 1], world.redis.port()).into();
    let proxy = Proxy::start(redis, Held::Cut, trigger).await;
    let config = world.config_of_policies(&Timing::default(), None);
    let text = fs::read_to_string(&config).unwrap();
    let through_the_proxy = format!("redis://{}", proxy.address());
    fs::write(
        &config,
        text.replace(&world.redis.url(), &through_the_proxy),
    )
    .unwrap();
    let broker = BrokerProcess::start(&config).await;

    let stranger = token(&world.emulator, STRANGER);
    let mut stranger = broker.client_with(Some(&stranger));
    let cluster = world.cluster("aks-production");
    let mut is_refused = async || {
        let wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
        let refusal = Refusal::from(stranger.grant(wish).await);
        assert_eq!(refusal.code, Code::PermissionDenied);
    };
    // From the first one on Redis knows the script.
    is_refused().await;
    assert_eq!(world.refusals().await.len(), 1);
    proxy.arm();
    is_refused().await;
    proxy.until_cut().await;
    let refusals = world.refusals().await;
    assert_eq!(refusals.len(), 2, "{refusals:?}");
}
