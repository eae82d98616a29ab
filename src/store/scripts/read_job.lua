-- Reads a job with its targets, both of one moment.
--
-- Flags: allow-oom, which a transaction of two reads would not be: a full Redis refuses it.
-- Argument: job.
-- Returns the job's hash and its targets', each as a flat list of fields and values; both empty where there is none.

return { redis.call('HGETALL', job_key(a.job)), redis.call('HGETALL', targets_key(a.job)) }
