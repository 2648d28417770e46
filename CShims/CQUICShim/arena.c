#define _GNU_SOURCE
#include "arena.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LLQ_PLAIN_MALLOC 1
#endif
#endif

// Like the other functions that ngtcp2 gets, but the same for both kinds of memory below.
static void *arena_calloc(size_t count, size_t size, void *user_data);

#ifdef LLQ_PLAIN_MALLOC

// So that the sanitizer sees every allocation.

struct llq_arena {
    ngtcp2_mem mem;
    void *object;
    size_t read_bytes;
    bool is_reading;
};

typedef struct header {
    size_t size; // of what follows
    size_t read_size; // the same if it was taken while reading, else 0
} header;

static void *arena_malloc(size_t size, void *user_data) {
    llq_arena *arena = user_data;
    header *h = size > SIZE_MAX - sizeof *h ? NULL : malloc(sizeof *h + size);
    if (!h) return NULL;
    *h = (header){size, arena->is_reading ? size : 0};
    arena->read_bytes += h->read_size;
    return h + 1;
}

static void arena_free(void *pointer, void *user_data) {
    if (!pointer) return;
    header *h = (header *)pointer - 1;
    ((llq_arena *)user_data)->read_bytes -= h->read_size;
    free(h);
}

static void *arena_realloc(void *pointer, size_t size, void *user_data) {
    void *moved = arena_malloc(size, user_data);
    if (!moved || !pointer) return moved;
    size_t present = ((header *)pointer - 1)->size;
    memcpy(moved, pointer, present < size ? present : size);
    arena_free(pointer, user_data);
    return moved;
}

llq_arena *llq_arena_new(size_t size, void **object) {
    llq_arena *arena = calloc(1, sizeof *arena);
    if (!arena) return NULL;
    arena->mem = (ngtcp2_mem){arena, arena_malloc, arena_free, arena_calloc, arena_realloc};
    *object = arena->object = calloc(1, size);
    if (arena->object) return arena;
    free(arena);
    return NULL;
}

void llq_arena_free(llq_arena *arena) {
    free(arena->object);
    free(arena);
}

#else

// What these numbers cost on each version of ngtcp2: docs/performance.md, "Idle connections".
enum {
    PAGE = 4096,
    SHARED_PAGES = 4,        // of a run that small pieces and a block share; the block touches the first of them
    MAX_PAGES = 8,           // of a run
    SLAB_PAGES = 256,        // taken from the system at a time
    MAX_WARM = 256,          // free runs of one length that keep their pages
    MAX_RUNS = 24,           // of one arena; beyond, malloc's
    MAX_SHARED = 3,          // shared runs of one arena; small pieces beyond are malloc's
    FRONT = 2944,            // of a shared run's first page, for small pieces; a block's touched beginning fits behind
    LARGEST_SMALL = 2048,    // beyond: a block
    SMALLEST_PASSING = 1072, // what is this large, and smaller than the next, mostly goes with the handshake: malloc's
    LARGEST_PASSING = 2032,
    ALIGN = 16,
    LARGEST_CLASS = 256 / ALIGN, // free pieces beyond are in one list
};

// Runs of pages, for all connections of the process.

typedef struct free_run {
    struct free_run *next;
} free_run;

static struct {
    pthread_mutex_t lock;
    /// By length. Warm runs hold their pages; cold ones hold addresses only, so their links lie elsewhere.
    free_run *warm[MAX_PAGES + 1];
    size_t warm_count[MAX_PAGES + 1];
    void **cold[MAX_PAGES + 1];
    size_t cold_count[MAX_PAGES + 1], cold_capacity[MAX_PAGES + 1];
    uint8_t *slab;
    size_t slab_pages;
} pages = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *carve(size_t count) {
    if (pages.slab_pages < count) {
        void *slab = mmap(NULL, (size_t)SLAB_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (slab == MAP_FAILED) return NULL;
        // A huge page would make all of it resident.
        (void)madvise(slab, (size_t)SLAB_PAGES * PAGE, MADV_NOHUGEPAGE);
        pages.slab = slab;
        pages.slab_pages = SLAB_PAGES;
    }
    void *run = pages.slab;
    pages.slab += count * PAGE;
    pages.slab_pages -= count;
    return run;
}

static void *take_run(size_t count) {
    void *run;
    pthread_mutex_lock(&pages.lock);
    if (pages.warm[count]) {
        run = pages.warm[count];
        pages.warm[count] = pages.warm[count]->next;
        pages.warm_count[count]--;
    } else if (pages.cold_count[count] > 0) {
        run = pages.cold[count][--pages.cold_count[count]];
    } else {
        run = carve(count);
    }
    pthread_mutex_unlock(&pages.lock);
    return run;
}

/// Gives a run's pages back to the system and keeps its addresses. Not 0: no memory for the list.
static int make_cold(void *run, size_t count) {
    if (pages.cold_count[count] == pages.cold_capacity[count]) {
        size_t capacity = pages.cold_capacity[count] ? pages.cold_capacity[count] * 2 : 256;
        void **grown = realloc(pages.cold[count], capacity * sizeof *grown);
        if (!grown) return -1;
        pages.cold[count] = grown;
        pages.cold_capacity[count] = capacity;
    }
    if (madvise(run, count * PAGE, MADV_DONTNEED) != 0) return -1;
    pages.cold[count][pages.cold_count[count]++] = run;
    return 0;
}

static void give_run(void *run, size_t count) {
    pthread_mutex_lock(&pages.lock);
    if (pages.warm_count[count] < MAX_WARM || make_cold(run, count) != 0) {
        free_run *entry = run;
        entry->next = pages.warm[count];
        pages.warm[count] = entry;
        pages.warm_count[count]++;
    }
    pthread_mutex_unlock(&pages.lock);
}

// The arena of one connection.

enum kind { IN_FRONT, FREE, BEHIND_FRONT, OWN_RUN, FROM_MALLOC };

/// Stands before every piece and block, free ones of a front included.
typedef struct header {
    uint32_t size; // of what follows, rounded up
    uint8_t kind;
    uint8_t shared; // BEHIND_FRONT: whose
    bool by_reading;
    uint8_t unused[9];
} header;

_Static_assert(sizeof(header) == ALIGN, "a header keeps what follows it aligned");

typedef struct free_piece {
    struct free_piece *next;
} free_piece;

struct llq_arena {
    ngtcp2_mem mem;
    /// The arena's own run and the shared ones: where the small pieces begin and end, and the place behind them for a
    /// block, NULL if it is taken.
    struct {
        uint8_t *front, *front_end, *behind;
    } shared[MAX_SHARED];
    /// Blocks that have a run for themselves. What they take is in their headers.
    void *runs[MAX_RUNS];
    /// Free pieces of the fronts by size; larger ones are in the list of class 0.
    free_piece *pieces[LARGEST_CLASS + 1];
    uint8_t shared_count, run_count;
    bool freed; // since neighbours were joined
    bool is_reading;
    size_t read_bytes;
};

static size_t round_up(size_t size) { return (size + ALIGN - 1) & ~(size_t)(ALIGN - 1); }
static size_t pages_of(size_t bytes) { return (bytes + PAGE - 1) / PAGE; }
static header *header_of(void *pointer) { return (header *)pointer - 1; }

static void *finish(void *at, size_t size, enum kind kind) {
    header *h = at;
    h->size = (uint32_t)size;
    h->kind = (uint8_t)kind;
    return h + 1;
}

static void *from_malloc(size_t size) {
    void *at = size > UINT32_MAX - ALIGN ? NULL : malloc(sizeof(header) + size);
    return at ? finish(at, size, FROM_MALLOC) : NULL;
}

// Small pieces.

static void add_piece(llq_arena *arena, void *at, size_t size) {
    free_piece *piece = finish(at, size, FREE);
    free_piece **list = &arena->pieces[size / ALIGN <= LARGEST_CLASS ? size / ALIGN : 0];
    piece->next = *list;
    *list = piece;
}

static void add_front(llq_arena *arena, size_t place, uint8_t *begin, uint8_t *end) {
    // Less can hold nothing.
    if (end < begin + sizeof(header) + ALIGN) end = begin;
    arena->shared[place].front = begin;
    arena->shared[place].front_end = end;
    if (end > begin) add_piece(arena, begin, (size_t)(end - begin) - sizeof(header));
}

/// A run with room for small pieces, and behind them for a block.
static int add_shared_run(llq_arena *arena) {
    uint8_t *base = arena->shared_count < MAX_SHARED ? take_run(SHARED_PAGES) : NULL;
    if (!base) return -1;
    arena->shared[arena->shared_count].behind = base + FRONT;
    add_front(arena, arena->shared_count++, base, base + FRONT);
    return 0;
}

static void *take_piece(llq_arena *arena, free_piece **link, size_t size) {
    free_piece *piece = *link;
    *link = piece->next;
    header *h = header_of(piece);
    size_t rest = h->size - size;
    if (rest < sizeof(header) + ALIGN) return finish(h, h->size, IN_FRONT);
    add_piece(arena, (uint8_t *)piece + size, rest - sizeof(header));
    return finish(h, size, IN_FRONT);
}

/// The smallest free piece that is large enough; NULL: none.
static void *find_piece(llq_arena *arena, size_t size) {
    for (size_t class = size / ALIGN; class <= LARGEST_CLASS; class++)
        if (arena->pieces[class]) return take_piece(arena, &arena->pieces[class], size);
    free_piece **best = NULL;
    for (free_piece **link = &arena->pieces[0]; *link; link = &(*link)->next) {
        size_t found = header_of(*link)->size;
        if (found >= size && (!best || found < header_of(*best)->size)) best = link;
    }
    return best ? take_piece(arena, best, size) : NULL;
}

/// Makes one of free pieces that lie side by side.
static void join_pieces(llq_arena *arena) {
    memset(arena->pieces, 0, sizeof arena->pieces);
    for (size_t i = 0; i < arena->shared_count; i++) {
        uint8_t *end = arena->shared[i].front_end;
        for (uint8_t *at = arena->shared[i].front; at < end;) {
            uint8_t *next = at;
            do next += sizeof(header) + ((header *)(void *)next)->size;
            while (((header *)(void *)at)->kind == FREE && next < end && ((header *)(void *)next)->kind == FREE);
            if (((header *)(void *)at)->kind == FREE) add_piece(arena, at, (size_t)(next - at) - sizeof(header));
            at = next;
        }
    }
    arena->freed = false;
}

static void *allocate_small(llq_arena *arena, size_t size) {
    void *piece = find_piece(arena, size);
    if (!piece && arena->freed) {
        join_pieces(arena);
        piece = find_piece(arena, size);
    }
    if (!piece && add_shared_run(arena) == 0) piece = find_piece(arena, size);
    return piece ? piece : from_malloc(size);
}

// Blocks.

/// The first block is ngtcp2's connection, which is touched from one end to the other: it ends where a page does, and
/// what is left in front of it is for small pieces.
static void *allocate_first(llq_arena *arena, size_t needed) {
    uint8_t *base = (uint8_t *)arena, *used = arena->shared[0].front;
    size_t pages = pages_of((size_t)(used - base) + needed);
    arena->shared[0].behind = NULL;
    if (pages > SHARED_PAGES) return NULL;
    uint8_t *at = base + pages * PAGE - needed;
    add_front(arena, 0, used, at);
    return at;
}

static void *allocate_block(llq_arena *arena, size_t size) {
    size_t needed = sizeof(header) + size;
    for (size_t i = 0; i < arena->shared_count; i++) {
        uint8_t *at = arena->shared[i].behind;
        if (!at) continue;
        if (i == 0)
            at = allocate_first(arena, needed);
        else if (needed > SHARED_PAGES * PAGE - FRONT)
            break;
        if (!at) continue;
        arena->shared[i].behind = NULL;
        void *block = finish(at, size, BEHIND_FRONT);
        header_of(block)->shared = (uint8_t)i;
        return block;
    }
    void *run = arena->run_count < MAX_RUNS && pages_of(needed) <= MAX_PAGES ? take_run(pages_of(needed)) : NULL;
    if (!run) return from_malloc(size);
    arena->runs[arena->run_count++] = run;
    return finish(run, size, OWN_RUN);
}

static void free_run_of(llq_arena *arena, header *h) {
    for (size_t i = 0; i < arena->run_count; i++) {
        if (arena->runs[i] != h) continue;
        arena->runs[i] = arena->runs[--arena->run_count];
        give_run(h, pages_of(sizeof *h + h->size));
        return;
    }
}

// ngtcp2's functions.

static void *allocate(llq_arena *arena, size_t size) {
    if (size > UINT32_MAX - ALIGN) return NULL;
    size = round_up(size == 0 ? 1 : size);
    if (size >= SMALLEST_PASSING && size <= LARGEST_PASSING) return from_malloc(size);
    return size <= LARGEST_SMALL ? allocate_small(arena, size) : allocate_block(arena, size);
}

static void *arena_malloc(size_t size, void *user_data) {
    llq_arena *arena = user_data;
    void *pointer = allocate(arena, size);
    if (!pointer) return NULL;
    header_of(pointer)->by_reading = arena->is_reading;
    if (arena->is_reading) arena->read_bytes += header_of(pointer)->size;
    return pointer;
}

static void arena_free(void *pointer, void *user_data) {
    llq_arena *arena = user_data;
    if (!pointer) return;
    header *h = header_of(pointer);
    if (h->by_reading) arena->read_bytes -= h->size;
    switch ((enum kind)h->kind) {
    case IN_FRONT:
        add_piece(arena, h, h->size);
        arena->freed = true;
        break;
    // The first block keeps its place: ngtcp2 frees it last.
    case BEHIND_FRONT:
        if (h->shared > 0) arena->shared[h->shared].behind = (uint8_t *)h;
        break;
    case OWN_RUN: free_run_of(arena, h); break;
    case FROM_MALLOC: free(h); break;
    case FREE: break;
    }
}

static void *arena_realloc(void *pointer, size_t size, void *user_data) {
    if (!pointer) return arena_malloc(size, user_data);
    size_t present = header_of(pointer)->size;
    if (size <= present) return pointer;
    void *larger = arena_malloc(size, user_data);
    if (!larger) return NULL;
    memcpy(larger, pointer, present);
    arena_free(pointer, user_data);
    return larger;
}

llq_arena *llq_arena_new(size_t size, void **object) {
    size_t used = round_up(sizeof(llq_arena)) + round_up(size);
    uint8_t *base = used <= PAGE ? take_run(SHARED_PAGES) : NULL;
    if (!base) return NULL;
    memset(base, 0, used);
    llq_arena *arena = (llq_arena *)(void *)base;
    arena->mem = (ngtcp2_mem){arena, arena_malloc, arena_free, arena_calloc, arena_realloc};
    arena->shared[0].front = arena->shared[0].front_end = arena->shared[0].behind = base + used;
    arena->shared_count = 1;
    *object = base + round_up(sizeof(llq_arena));
    return arena;
}

void llq_arena_free(llq_arena *arena) {
    while (arena->run_count > 0) free_run_of(arena, arena->runs[arena->run_count - 1]);
    // The first run holds the arena itself.
    for (size_t i = arena->shared_count; i-- > 1;) give_run(arena->shared[i].front, SHARED_PAGES);
    give_run(arena, SHARED_PAGES);
}

#endif

static void *arena_calloc(size_t count, size_t size, void *user_data) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) return NULL;
    void *pointer = arena_malloc(total, user_data);
    if (pointer) memset(pointer, 0, total);
    return pointer;
}

const ngtcp2_mem *llq_arena_mem(const llq_arena *arena) { return &arena->mem; }
void llq_arena_set_reading(llq_arena *arena, bool on) { arena->is_reading = on; }
size_t llq_arena_read_bytes(const llq_arena *arena) { return arena->read_bytes; }
