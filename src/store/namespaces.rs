//! Namespaces, as commands write and read them. Their secrets go in and never come out here: only a claim reads them.

use std::error::Error as Cause;
use std::fmt;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};

use super::Error;
use super::pool::Lent;
use super::timers::{Written, write};
use crate::clock::Timestamp;
use crate::domain::limits;
use crate::domain::webhook::Secret;

const LIST: &str = include_str!("../../sql/queries/namespaces/list.sql");
const GET: &str = include_str!("../../sql/queries/namespaces/get.sql");
const COUNT_CONTENTS: &str = include_str!("../../sql/queries/namespaces/count_contents.sql");
const CREATE: &str = include_str!("../../sql/queries/namespaces/create.sql");
const ROTATE: &str = include_str!("../../sql/queries/namespaces/rotate.sql");
const RETIRE: &str = include_str!("../../sql/queries/namespaces/retire.sql");
const DELETE: &str = include_str!("../../sql/queries/namespaces/delete.sql");
const DELETE_SCHEDULES: &str = include_str!("../../sql/queries/namespaces/delete_schedules.sql");
const CANCEL_TIMERS: &str = include_str!("../../sql/queries/namespaces/cancel_timers.sql");

/// A namespace as its readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// How many secrets it has: 0, 1 or 2.
    pub secrets: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What there is in a namespace, each counted up to [`limits::NAMESPACE_COUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Pending timers.
    pub timers: u32,
    /// Schedules, paused ones included.
    pub schedules: u32,
    /// Runs under way.
    pub runs: u32,
}

/// At most `limit` namespaces behind the name `after`, in the order of their names.
pub async fn list(client: &Lent, after: &str, limit: u32) -> Result<Vec<Namespace>, Error> {
    let listed = client.ask("listing namespaces", async {
        let statement = client.prepare_cached(LIST).await?;
        client.query(&statement, &[&after, &i64::from(limit)]).await?.iter().map(namespace).collect()
    });
    listed.await
}

/// The namespace of that name.
pub async fn get(client: &Lent, name: &str) -> Result<Option<Namespace>, Error> {
    let found = client.ask("reading a namespace", async {
        let statement = client.prepare_cached(GET).await?;
        client.query_opt(&statement, &[&name]).await?.as_ref().map(namespace).transpose()
    });
    found.await
}

/// What there is in the namespace of that name, whether it is listed or not.
pub async fn contents(client: &Lent, name: &str) -> Result<Contents, Error> {
    let counted = client.ask("counting what is in a namespace", async {
        let statement = client.prepare_cached(COUNT_CONTENTS).await?;
        let row = client.query_one(&statement, &[&name, &i64::from(limits::NAMESPACE_COUNT_MAX)]).await?;
        let (timers, schedules, runs) = (count(&row, "timers")?, count(&row, "schedules")?, count(&row, "runs")?);
        Ok::<_, tokio_postgres::Error>(Contents { timers, schedules, runs })
    });
    counted.await
}

/// Makes a namespace; [`Written::Missing`] where there is one of that name.
pub async fn create(client: &Lent, name: &str, secret: Option<&Secret>) -> Result<Written<()>, Error> {
    let secrets: Vec<Hidden> = secret.map(Hidden::of).into_iter().collect();
    write(client, "creating a namespace", CREATE, &[&name, &secrets], |_| Ok(())).await
}

/// Puts a secret in front of the one that the namespace has; [`Written::Missing`] where it has two, or this one, or is not there.
pub async fn rotate(client: &Lent, name: &str, secret: &Secret) -> Result<Written<()>, Error> {
    write(client, "rotating the secret of a namespace", ROTATE, &[&name, &Hidden::of(secret)], |_| Ok(())).await
}

/// Drops the older of two secrets; [`Written::Missing`] where the namespace has not two, or is not there.
pub async fn retire(client: &Lent, name: &str) -> Result<Written<()>, Error> {
    write(client, "retiring a secret of a namespace", RETIRE, &[&name], |_| Ok(())).await
}

/// Deletes the namespace; [`Written::Missing`] where something in it is pending or under way, or it is not there.
pub async fn delete(client: &Lent, name: &str) -> Result<Written<()>, Error> {
    write(client, "deleting a namespace", DELETE, &[&name], |_| Ok(())).await
}

/// Deletes at most `limit` schedules of the namespace, and returns how many.
pub async fn delete_schedules(client: &Lent, name: &str, limit: u32) -> Result<Written<u32>, Error> {
    let parameters: [&(dyn ToSql + Sync); 2] = [&name, &i64::from(limit)];
    write(client, "deleting the schedules of a namespace", DELETE_SCHEDULES, &parameters, |row| count(row, "count"))
        .await
}

/// Cancels at most `limit` timers of the namespace, and returns how many.
pub async fn cancel_timers(client: &Lent, name: &str, limit: u32) -> Result<Written<u32>, Error> {
    let parameters: [&(dyn ToSql + Sync); 2] = [&name, &i64::from(limit)];
    write(client, "cancelling the timers of a namespace", CANCEL_TIMERS, &parameters, |row| count(row, "count")).await
}

/// A secret as a parameter. The driver's log has all parameters, and shows nothing of this one.
struct Hidden(String);

impl Hidden {
    fn of(secret: &Secret) -> Self {
        Self(secret.reveal())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl ToSql for Hidden {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Cause + Sync + Send>> {
        self.0.to_sql(kind, out)
    }

    accepts!(TEXT);
    to_sql_checked!();
}

fn namespace(row: &Row) -> Result<Namespace, tokio_postgres::Error> {
    let secrets: i32 = row.try_get("secrets")?;
    Ok(Namespace {
        name: row.try_get("name")?,
        // A check constraint keeps it within 0 to 2.
        secrets: u32::try_from(secrets).unwrap_or(0),
        created_at: row.try_get("created_at")?,
    })
}

/// A count of the statement, which has a bound.
fn count(row: &Row, column: &str) -> Result<u32, tokio_postgres::Error> {
    Ok(u32::try_from(row.try_get::<_, i64>(column)?).unwrap_or(u32::MAX))
}
