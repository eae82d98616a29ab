//! Several brokers on one Redis and one Azure. Each is somebody of its own in Entra, so that the emulator's history
//! tells whose a call was; to the brokers themselves that makes no difference.

use std::path::PathBuf;

use azure_emulator::{Principal, ServicePrincipal};
use futures::future::join_all;
use uuid::{Uuid, uuid};

use super::broker::{BrokerProcess, Client};
use super::{SECRET, Timing, World};

const OWNER: Uuid = uuid!("8e3af657-a8ff-443c-a75c-2fe8c4bcb635");
/// The object id and the application id of the first; those of the others follow.
const FIRST_PRINCIPAL: u128 = 0x3000_0000_0000_4000_8000_0000_0000_1000;
const FIRST_APP: u128 = 0x4000_0000_0000_4000_8000_0000_0000_1000;

/// One of several brokers.
pub struct Replica {
    /// The process as it runs now.
    pub process: BrokerProcess,
    /// The object id in its access tokens: [`azure_emulator::Call::principal`].
    pub principal: Uuid,
    config: PathBuf,
}

impl Replica {
    /// Starts the `n`th of a world's brokers, and waits until it says that it serves.
    pub async fn start(world: &World, timing: &Timing, n: u8) -> Self {
        let principal = Uuid::from_u128(FIRST_PRINCIPAL + u128::from(n));
        let app = Uuid::from_u128(FIRST_APP + u128::from(n));
        let itself = ServicePrincipal {
            id: principal,
            app_id: app,
            display_name: format!("access-broker-{n}"),
            account_enabled: true,
            secrets: vec![SECRET.to_owned()],
            federated_credentials: Vec::new(),
            graph_permissions: Vec::new(),
            app_role_assignments: Vec::new(),
        };
        let added = world
            .emulator
            .add_principal(Principal::ServicePrincipal(itself));
        added.expect("a service principal");
        let everywhere = "/providers/Microsoft.Management/managementGroups/contoso";
        world.somebody_else_gives(everywhere, OWNER, principal, None);
        let config = world.config_as(app, timing, &world.redis.url(), &world.emulator.urls().arm);
        Self {
            process: BrokerProcess::start(&config).await,
            principal,
            config,
        }
    }

    /// Starts three.
    pub async fn three(world: &World, timing: &Timing) -> [Self; 3] {
        let all = join_all((0..3).map(|n| Self::start(world, timing, n))).await;
        all.try_into().ok().expect("three")
    }

    /// `kill -9`, and a start.
    pub async fn killed_and_started(self) -> Self {
        self.process.kill().await;
        Self {
            process: BrokerProcess::start(&self.config).await,
            ..self
        }
    }

    /// Tells it to end, and waits until it has: then every pass of its own has recorded what it did.
    pub async fn end(self) {
        self.process.signal("TERM").await;
        self.process.ended().await;
    }

    /// A client of it as it runs now.
    pub fn client(&self) -> Client {
        self.process.client()
    }
}
