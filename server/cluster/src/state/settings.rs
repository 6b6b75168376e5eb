//! Settings with their defaults, and partial ones ("patches"), from one list of fields.

/// Makes of one list of fields a struct with defaults and its patch, in which each field is optional.
///
/// Field names are the ones on the wire. `merge` takes over what a patch has and says whether anything
/// changed by it.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $name:ident, $patch:ident {
            $( $(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        #[doc = concat!("A part of [`", stringify!($name), "`]: what is to change.")]
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $patch {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        impl $name {
            /// Takes over what the patch has; whether that differs from what was there.
            pub fn merge(&mut self, patch: &$patch) -> bool {
                let mut changed = false;
                $(
                    if let Some(value) = &patch.$field
                        && self.$field != *value
                    {
                        self.$field = value.clone();
                        changed = true;
                    }
                )*
                changed
            }

            /// Whether there is a field of this name on the wire.
            pub fn knows(field: &str) -> bool {
                serde_json::to_value(Self::default()).is_ok_and(|all| all.get(field).is_some())
            }
        }

        impl $patch {
            /// Reads a patch as it comes on the wire. A wrong type is `invalid_schema`; fields that are
            /// not known are ignored unless `strict`.
            pub fn parse(
                value: &serde_json::Value,
                strict: bool,
            ) -> Result<Self, crate::state::Refused> {
                crate::state::settings::parse(value, strict, $name::knows)
            }
        }
    };
}

pub(crate) use settings;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Refused;

pub(crate) fn parse<T: DeserializeOwned + Default>(
    value: &Value,
    strict: bool,
    knows: impl Fn(&str) -> bool,
) -> Result<T, Refused> {
    let fields = match value {
        Value::Null => return Ok(T::default()),
        Value::Object(fields) => fields,
        _ => return Err(Refused::schema("a JSON object is expected")),
    };
    if strict && let Some(name) = fields.keys().find(|name| !knows(name)) {
        return Err(Refused::schema(format!("there is no field {name}")));
    }
    // One at a time, so that the answer can name the field.
    for (name, value) in fields {
        let mut one = serde_json::Map::new();
        one.insert(name.clone(), value.clone());
        if let Err(error) = serde_json::from_value::<T>(Value::Object(one)) {
            return Err(Refused::schema(format!("{name}: {error}")));
        }
    }
    serde_json::from_value(value.clone()).map_err(|error| Refused::schema(error.to_string()))
}
