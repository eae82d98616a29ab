//! The audit trail, as it lies in Redis, sealed or not.

use serde_json::Value;

use super::World;

/// The streams that hold it: what is sealed is older.
const STREAMS: [&str; 2] = ["{aab:main}:audit:sealed", "{aab:main}:audit"];

impl World {
    /// All events of the trail, the oldest first.
    pub async fn trail(&self) -> Vec<Value> {
        let mut connection = self.redis.connection().await;
        let mut both = ::redis::pipe();
        both.atomic();
        for stream in STREAMS {
            both.cmd("XRANGE").arg(stream).arg("-").arg("+");
        }
        let streams: Vec<Vec<(String, Vec<String>)>> = both
            .query_async(&mut connection)
            .await
            .expect("Redis answers");
        let events = streams.into_iter().flatten().map(|(_, fields)| {
            let mut pairs = fields.chunks(2);
            let event = pairs.find(|pair| pair[0] == "event").expect("an event");
            serde_json::from_str(&event[1]).expect("an event is JSON")
        });
        events.collect()
    }

    /// The refusals of the trail: who, what, why, and by which policies.
    pub async fn refusals(&self) -> Vec<[String; 4]> {
        let trail = self.trail().await;
        let refused = trail.iter().filter(|event| event["outcome"] == "REFUSED");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let told = refused.map(|event| {
            let action = text(&event["action"]);
            let rpc = action.rsplit('/').next().unwrap_or_default().to_owned();
            let policies = text(&event["details"]["policies"]);
            [text(&event["actor"]), rpc, text(&event["reason"]), policies]
        });
        told.collect()
    }

    /// Waits until nothing of the trail waits for its seal.
    pub async fn sealed(&self) {
        let mut connection = self.redis.connection().await;
        loop {
            let waiting: u64 = ::redis::cmd("XLEN")
                .arg(STREAMS[1])
                .query_async(&mut connection)
                .await
                .expect("Redis answers");
            if waiting == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
