//! Errors as text.

use core::fmt::{Debug, Display, Formatter, Result};

use fvd::create::CreateError;
use fvd::device::DeviceError;
use fvd::format::{Field, FormatError, LayoutError};
use fvd::open::OpenError;
use fvd::{StaleRequest, Stats};

type Show<T> = fn(&T, &mut Formatter<'_>) -> Result;

keep! {
    Show<CreateError> = <CreateError as Display>::fmt;
    Show<DeviceError> = <DeviceError as Display>::fmt;
    Show<FormatError> = <FormatError as Display>::fmt;
    Show<LayoutError> = <LayoutError as Display>::fmt;
    Show<OpenError> = <OpenError as Display>::fmt;
    Show<StaleRequest> = <StaleRequest as Display>::fmt;
    Show<Stats> = <Stats as Debug>::fmt;
    fn(Field) -> &'static str = Field::name;
    fn(Field) -> &'static str = Field::rule;
}
