// What configures the transport and what it reports are the engine's types: importing this module is enough to use them.
@_exported public import QUICEngine
