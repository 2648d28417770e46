// Keys and what is wrong with a credential are said in types that clients need as well: importing this module is enough to use them.
@_exported public import LonglineKeys
