import ArgumentParser
import LonglineServer

/// The command-line tool.
struct Longline: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "longline", abstract: "Keep clients connected over QUIC.", version: LonglineVersion.current,
        subcommands: [
            DemoCommand.self,
            ServerCommand.self, SignTokenCommand.self, ConfigCommand.self, StatusCommand.self,
            SessionsCommand.self, DrainCommand.self, RevokeCommand.self, EraseCommand.self,
            KeysCommand.self, APIKeyCommand.self, BackupCommand.self,
            ChatCommand.self,
            SendCommand.self, SignalCommand.self, ListenCommand.self, HistoryCommand.self, RoomCommandLine.self,
            ConversationsCommand.self, RequestCommand.self, PresenceCommand.self,
            VersionCommand.self,
        ])
}
