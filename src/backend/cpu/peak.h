/* The peak: the multiply-adds per second of an instruction set in a loop of nothing else, in registers. Kernels are reported as a
 * fraction of it; one that saves multiplications (Winograd) may exceed 100 %. */
#ifndef NITI_BACKEND_CPU_PEAK_H
#define NITI_BACKEND_CPU_PEAK_H

#include "backend/cpu/cpu.h"

/* Runs `rounds` rounds (below 2^24) of one multiply-add into each of many sums and returns the number of multiply-adds. Every
 * factor is 1, so that this number is the total of the sums. */
typedef uint64_t (*NitiPeakKernel)(uint32_t rounds);
NitiPeakKernel niti_peak_kernel(NitiIsa isa); /* NULL for the portable kernels, which have no peak */
uint64_t niti_peak_avx2(uint32_t rounds);
uint64_t niti_peak_avx512vnni(uint32_t rounds);
uint64_t niti_peak_amx(uint32_t rounds);
uint64_t niti_peak_dotprod(uint32_t rounds);
uint64_t niti_peak_i8mm(uint32_t rounds);

#endif
