import Testing

@testable import LonglineStore

@Suite struct ErasureWatchTests {
    @Test("that none is under way holds until one is resolved")
    func quietUntilAChange() {
        let watch = ErasureWatch()
        #expect(!watch.isQuiet, "a process before this one may have left some")
        watch.foundNone(watch.begin())
        #expect(watch.isQuiet)
        watch.changes()
        #expect(!watch.isQuiet)
        watch.foundNone(watch.begin())
        #expect(watch.isQuiet)
    }

    @Test("a look that began before an erasure was resolved, or while it was written, says nothing afterwards")
    func looksMeanwhile() {
        let watch = ErasureWatch()
        let before = watch.begin()
        watch.changes()
        watch.foundNone(before)
        #expect(!watch.isQuiet)
        let meanwhile = watch.begin()
        watch.changes()
        watch.foundNone(meanwhile)
        #expect(!watch.isQuiet)
        // Also where it is through before the writing is.
        watch.foundNone(watch.begin())
        watch.changes()
        #expect(!watch.isQuiet)
    }
}
