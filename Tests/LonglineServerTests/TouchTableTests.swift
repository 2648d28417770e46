import LonglineWire
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

@Suite struct TouchTableTests {
    @Test func nothingIsKnownUntilTheStoreAnswered() {
        var table = TouchTable()
        #expect(table.isInTouch(with: ann) == nil && !table.contains(ann))
        let number = table.ask(about: [ann, bob])
        #expect(table.isInTouch(with: ann) == nil && table.contains(ann) && table.count == 2)
        #expect(table.answered(number, about: [ann, bob], outOfTouch: [bob]) == [ann, bob])
        #expect(table.isInTouch(with: ann) == true && table.isInTouch(with: bob) == false)
        #expect(table.answered(number, about: [ann, bob], outOfTouch: []).isEmpty, "once")
    }

    @Test func anAnswerThatWasOnItsWayWhenSomethingChangedCountsForNothing() {
        var table = TouchTable()
        let first = table.ask(about: [ann, bob])
        let second = table.ask(about: [ann])
        #expect(table.answered(first, about: [ann, bob], outOfTouch: []) == [bob])
        #expect(table.isInTouch(with: ann) == nil)
        #expect(table.waiting(for: second, of: [ann, bob]) == [ann])
        table.forget([ann])
        #expect(table.answered(second, about: [ann], outOfTouch: [ann]).isEmpty && !table.contains(ann))
    }

    @Test func whatIsNotKeptIsUnknownAgain() {
        var table = TouchTable()
        _ = table.answered(table.ask(about: [ann, bob]), about: [ann, bob], outOfTouch: [])
        table.forget(allBut: [bob])
        #expect(table.isInTouch(with: ann) == nil && table.isInTouch(with: bob) == true && table.count == 1)
    }
}
