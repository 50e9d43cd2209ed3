//! PostgreSQL at rest: the contract of the dispatcher's port, and what only a real server can show.

mod callbacks;
mod claims;
mod connections;
mod doctor;
mod fences;
mod history;
mod moves;
mod plans;
mod poison;
mod schema;
pub mod world;

use self::world::Postgres;

macro_rules! on_postgresql {
    ($case:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            crate::contract::$case(&Postgres::new().await).await;
        }
    };
}

crate::contract::for_each_case!(on_postgresql);
