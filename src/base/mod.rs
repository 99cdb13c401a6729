//! Ground. What every room may stand on; knows nothing of gateways and imports nothing of ours.

pub mod body;
pub mod cause;
pub mod certificate;
pub mod clock;
pub mod deadline;
pub mod http_client;
pub mod key;
pub mod pieces;
pub mod reservoir;
pub mod secret;
pub mod single_flight;
