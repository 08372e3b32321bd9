/* The loops by NEON. */
#define NITI_LOOPS niti_loops_neon
#include "backend/cpu/loops_vector.h"
