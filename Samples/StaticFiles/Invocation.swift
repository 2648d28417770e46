/// What the command line asks for.
enum Invocation: Equatable {
    case serve(directory: String, port: Int)
    case help
    /// It asks for nothing that can be done; why.
    case misuse(String)

    static let usage = "static-files DIRECTORY [PORT]"
    static let helpText = """
        Usage: \(usage)

        Serves the files below DIRECTORY over HTTP/3, at https://localhost:PORT/ (4433 unless given; 0: any that is free), until it is
        interrupted. It makes a certificate for localhost, and leaves it as localhost.pem in the present directory.
        """

    /// - Parameter arguments: without the program's own name.
    init(_ arguments: [String]) {
        if arguments.contains("--help") || arguments.contains("-h") {
            self = .help
        } else if let option = arguments.first(where: { $0.hasPrefix("-") }) {
            self = .misuse("there is no option '\(option)'")
        } else if let directory = arguments.first, arguments.count <= 2 {
            let text = arguments.count == 2 ? arguments[1] : "4433"
            if let port = UInt16(text) {
                self = .serve(directory: directory, port: Int(port))
            } else {
                self = .misuse("'\(text)' is no port: it is a number from 0 to 65535")
            }
        } else {
            self = .misuse(arguments.isEmpty ? "a directory has to be named" : "there are too many arguments")
        }
    }
}
