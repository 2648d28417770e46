// Shows the thread sanitizer the half of Swift's Mutex it can't see. Where nobody waits, Mutex locks and unlocks by atomic
// operations that are inlined into our code and so instrumented; where somebody waits, it calls into
// libswiftSynchronization, which is not, and the sanitizer reports what the mutex guards as a race. This library goes
// before it (LD_PRELOAD), calls it, and says what it did. Nothing is suppressed by that: an access outside of a mutex is
// still reported.
//
// In processes without the sanitizer its functions are absent (weak), and this only passes the calls on.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context))

extern void __tsan_acquire(void *address) __attribute__((weak));
extern void __tsan_release(void *address) __attribute__((weak));

#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

typedef SWIFT void (*lock_function)(uint32_t thread, SELF void *handle);
typedef SWIFT void (*unlock_function)(SELF void *handle);

// Synchronization._MutexHandle._lockSlow(_: UInt32); the handle is the address of its one atomic word.
SWIFT void lock_slow(uint32_t thread, SELF void *handle) __asm__(LOCK_SLOW);
SWIFT void lock_slow(uint32_t thread, SELF void *handle) {
    ((lock_function)dlsym(RTLD_NEXT, LOCK_SLOW))(thread, handle);
    if (__tsan_acquire) __tsan_acquire(handle);
}

// Synchronization._MutexHandle._unlockSlow()
SWIFT void unlock_slow(SELF void *handle) __asm__(UNLOCK_SLOW);
SWIFT void unlock_slow(SELF void *handle) {
    if (__tsan_release) __tsan_release(handle);
    ((unlock_function)dlsym(RTLD_NEXT, UNLOCK_SLOW))(handle);
}
