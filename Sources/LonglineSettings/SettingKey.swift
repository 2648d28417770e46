/// What a setting is called: `publish.rate` in a file, `LONGLINE_PUBLISH_RATE` in the environment, `--publish-rate` on the
/// command line.
///
/// The rule has no exception: the parts of a key, joined by hyphens, are the option's name.
package struct SettingKey: Hashable, Sendable, CustomStringConvertible {
    /// Groups, outermost first, and the name within.
    package let components: [String]

    /// A key from its parts.
    package init(components: [String]) { self.components = components }

    /// A key as files' authors write it, with dots.
    package init(_ text: String) { self.init(components: text.split(separator: ".").map(String.init)) }

    /// With dots.
    package var description: String { components.joined(separator: ".") }

    /// The option's name, without its dashes.
    package var optionName: String { components.joined(separator: "-") }

    /// The option as it is typed.
    package var option: String { "--\(optionName)" }

    /// The environment variable's name.
    package var variable: String { Self.variablePrefix + optionName.uppercased().replacing("-", with: "_") }

    /// What the names of all variables begin with.
    package static let variablePrefix = "LONGLINE_"
}
