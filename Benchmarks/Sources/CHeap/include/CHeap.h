// What malloc holds; Swift's C library module leaves malloc.h out.
#ifndef CHEAP_H
#define CHEAP_H

#include <stddef.h>

/// Gives free memory back to the system, and returns the bytes in use.
size_t heap_in_use(void);

#endif
