//! A lease under which a write hangs costs nobody the others.

use super::{PATIENCE, Ring};
use crate::support::receiver::Receiver;
use crate::support::{connect, eventually};

/// Sets a timer that is due at once; returns its shard.
async fn set(ring: &Ring, id: &str, url: &str) -> i16 {
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                  values ('default', $1, clock_timestamp(), $2) returning shard";
    ring.sql.query_one(insert, &[&id, &url]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_renewed_while_one_that_is_in_doubt_cannot_be_given_up_yet() {
    let ring = Ring::new().await;
    let receiver = Receiver::slow(std::time::Duration::ZERO).await;
    // So long that leases are renewed on a machine that is busy with other things; one in doubt is asked for every second.
    let dispatcher = ring.dispatcher("20s");
    ring.until_shared_by(1).await;
    // Claims of this timer are cut off, so that the lease of its shard is in doubt.
    let fail = "create table public.claims_fail (); insert into public.claims_fail default values;
                create function public.fail() returns trigger language plpgsql as $$ begin
                    if exists (select from public.claims_fail) then raise 'planted' using errcode = 'query_canceled'; end if;
                    return new;
                end $$;
                create trigger fail before insert on walclock.runs for each row
                    when (new.id = 'doubtful') execute function public.fail()";
    ring.sql.batch_execute(fail).await.unwrap();
    let epochs = ring.epochs().await;
    let claim = connect(&ring.database).await;
    claim.batch_execute("begin; select from walclock.shards for key share").await.unwrap();
    let doubtful = usize::try_from(set(&ring, "doubtful", &receiver.url()).await).unwrap();
    // Those of the doubtful shard are among them: nobody else may have it before the claim is over.
    ring.until_renewed(4).await;
    assert_eq!(ring.epochs().await, epochs, "no lease has run out");
    // Nor does anything wait for it that falls due in another shard.
    let mut others = (0..).map(|n| format!("other{n}"));
    while usize::try_from(set(&ring, &others.next().unwrap(), &receiver.url()).await).unwrap() == doubtful {}
    let called = async || (!receiver.calls().is_empty()).then_some(());
    eventually(PATIENCE, "another timer fires meanwhile", called).await;

    ring.sql.batch_execute("delete from public.claims_fail").await.unwrap();
    claim.batch_execute("commit").await.unwrap();
    let fired = async || receiver.by_timer().contains_key("doubtful").then_some(());
    eventually(PATIENCE, "the timer fires", fired).await;
    let mut after = ring.epochs().await;
    assert!(after[doubtful] > epochs[doubtful], "the lease was given up once the claim was over");
    after[doubtful] = epochs[doubtful];
    assert_eq!(after, epochs);
    assert!(receiver.by_timer().values().all(|calls| calls.len() == 1));
    assert_eq!(dispatcher.terminate().await, 0);
}
