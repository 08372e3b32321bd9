/* The most multiply-adds per second that an instruction set can do: a loop of nothing but them, in registers. Kernels are
 * reported as a fraction of it; one that saves multiplications (Winograd) may pass 100 %. */
#ifndef NITI_BACKEND_CPU_PEAK_H
#define NITI_BACKEND_CPU_PEAK_H

#include "backend/cpu/cpu.h"

/* Does `rounds` rounds (below 2^24) of one multiply-add into each of many sums and returns the multiply-adds done. Every factor
 * is 1, so that the number is what the sums add up to. */
typedef uint64_t (*NitiPeakKernel)(uint32_t rounds);
NitiPeakKernel niti_peak_kernel(NitiIsa isa); /* NULL: the portable kernels, which have no such peak */
uint64_t niti_peak_avx2(uint32_t rounds);
uint64_t niti_peak_avx512vnni(uint32_t rounds);
uint64_t niti_peak_amx(uint32_t rounds);
uint64_t niti_peak_dotprod(uint32_t rounds);
uint64_t niti_peak_i8mm(uint32_t rounds);

#endif
