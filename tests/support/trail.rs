//! The audit trail, as it lies in Redis.

use serde_json::Value;

use super::World;

impl World {
    /// All events of the trail, the oldest first.
    pub async fn trail(&self) -> Vec<Value> {
        let mut connection = self.redis.connection().await;
        let entries: Vec<(String, Vec<String>)> = ::redis::cmd("XRANGE")
            .arg("{aab:main}:audit")
            .arg("-")
            .arg("+")
            .query_async(&mut connection)
            .await
            .expect("Redis answers");
        let events = entries.into_iter().map(|(_, fields)| {
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
}
