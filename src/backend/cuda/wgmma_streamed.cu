/* Convolution whose weights pass in a stream that repeats: a slot brings one chunk of input channels, the next slot the next
 * chunk. A pair multiplies for `chunks` slots, beginning with whichever chunk it meets (a sum may begin anywhere), then rounds
 * and stores during one slot that passes it by; the other pair is half a turn off and has the tensor cores to itself meanwhile.
 */
#include "backend/cuda/wgmma_conv.cuh"

/* A stage of weights, to both blocks that copy into it. */
__device__ inline void give_back(uint32_t barrier, uint32_t rank) {
  niti_barrier_arrive(barrier);
  niti_barrier_arrive_at(barrier, rank ^ 1);
}

template <NitiFinish FINISH, int TAPS, int COLUMNS>
__global__ void __launch_bounds__(THREADS, 1)
    streamed(const __grid_constant__ CUtensorMap map, const __grid_constant__ ConvTiling t, const __grid_constant__ NitiOutput d,
             const int8_t *__restrict__ packed, const __grid_constant__ NitiRequantiseArgs rq, bool second) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t raw[];
  const uint32_t barriers = niti_shared_address(raw);
  const uint32_t boxes = (barriers + BARRIER_BYTES + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN;
  const uint32_t weights = boxes + t.pairs * t.boxes * t.box_stride;
  const uint32_t box_full = barriers, box_free = box_full + 8 * BOXES_MAX, weight_full = box_free + 8 * BOXES_MAX,
                 weight_free = weight_full + 8 * STAGES_MAX;
  constexpr uint32_t stage_bytes = TAPS * TILE_BYTES, part_bytes = stage_bytes / CLUSTER;
  ConvShared *shared = (ConvShared *)(raw + SHARED);
  const int warp = niti_uniform((int)threadIdx.x >> 5);
  const uint32_t rank = niti_cluster_rank();
  const int late = (t.chunks + 1) / 2; /* slots until the second pair's first turn */
  const int away = t.pairs - 1;        /* slots of a turn in which a pair rounds */

  ConvRange range = {};
  ConvWork work = conv_work(t, rank);
  const ConvPhase &phase = t.phase[work.phase];
  const int columns = phase.kw, steps = phase.kh * columns / TAPS; /* stages of a chunk */
  /* Whether a pair may step over a slot unseen: only where the ring is longer, or it could take an earlier round for this one. */
  const bool passes = steps < t.stages;
  if (second) {
    niti_kernel_begin();
    range.shift = niti_clipped_shift(rq.range->max, rq.clip);
    work.tiles = conv_tiles_again(t, rq, range.shift, work.tiles);
    if (work.tiles == 0) { /* nothing here, nor for the other block of the cluster */
      __syncthreads();     /* the block has read the range for the last time */
      if (threadIdx.x == 0) conv_range_end(rq, false);
      return;
    }
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < t.pairs * t.boxes; ++i)
      niti_barrier_init(box_full + 8 * i, 1), niti_barrier_init(box_free + 8 * i, PAIR_WARPS);
    for (int i = 0; i < t.stages; ++i)
      niti_barrier_init(weight_full + 8 * i, 1), niti_barrier_init(weight_free + 8 * i, CLUSTER * t.pairs * PAIR_WARPS);
    for (int i = 0; i < PAIRS; ++i) shared->meeting[i] = ConvMeeting{0, 0};
    shared->tiles = work.tiles;
    niti_barrier_publish();
  }
  __syncthreads();
  niti_cluster_sync();
  niti_kernel_begin();
  if (!second) range.shift = niti_range_predicted(rq);

  if (threadIdx.x >= CONSUMERS) {
    niti_registers_lower<COPY_REGISTERS>();
    if (threadIdx.x % 32 != 0) {
    } else if (warp == CONSUMERS / 32) { /* the weights */
      const int8_t *first = packed + phase.packed + (size_t)(work.k0 / BN) * t.chunks * steps * stage_bytes + rank * part_bytes;
      Ring ring = {0, 0};
      const int turns = work.tiles * (t.chunks + away);
      int chunk = 0, turn[PAIRS] = {0, 0}; /* a pair's slot within its turn */
      for (int slot = 0; slot < turns + away * (late - (passes ? 1 : 0)); ++slot) {
        uint32_t idle = 0; /* warps that this slot passes by: their share is given back for them */
#pragma unroll
        for (int p = 0; p < PAIRS; ++p) {
          if (p >= t.pairs) continue;
          idle += slot >= turns + p * late || (turn[p] == t.chunks && passes) ? CLUSTER * PAIR_WARPS : 0;
          if (slot >= p * late && ++turn[p] == t.chunks + away) turn[p] = 0;
        }
        const int8_t *from = first + (size_t)chunk * steps * stage_bytes;
        for (int i = 0; i < steps; ++i, from += stage_bytes, ring.next(t.stages)) {
          niti_barrier_wait(weight_free + 8 * ring.stage, ring.parity ^ 1);
          if (idle > 0) niti_barrier_arrive(weight_free + 8 * ring.stage, idle);
          niti_barrier_expect(weight_full + 8 * ring.stage, stage_bytes);
          niti_copy_run_to(weights + ring.stage * stage_bytes + rank * part_bytes, from, part_bytes, weight_full + 8 * ring.stage,
                           (1 << CLUSTER) - 1);
        }
        if (++chunk == t.chunks) chunk = 0;
      }
    } else if (warp <= CONSUMERS / 32 + t.pairs) { /* a pair's boxes */
      const int pair = warp - CONSUMERS / 32 - 1;
      niti_prefetch_map(&map);
      Ring ring = {0, 0};
      int chunk = pair * late % t.chunks;
      for (int i = 0; i < work.tiles; ++i) {
        const TilePlace p = place_of(t, (work.begin + i * work.step) * t.pairs + pair);
        for (int c = 0; c < t.chunks; ++c, ring.next(t.boxes)) {
          const uint32_t slot = pair * t.boxes + ring.stage;
          niti_barrier_wait(box_free + 8 * slot, ring.parity ^ 1);
          niti_barrier_expect(box_full + 8 * slot, t.box_bytes);
          niti_copy_box(boxes + slot * t.box_stride, &map, box_full + 8 * slot, chunk * CHUNK, p.n, p.w - phase.pad_w,
                        p.h - phase.pad_h);
          if (++chunk == t.chunks) chunk = 0;
        }
        if (away && ++chunk == t.chunks) chunk = 0; /* the slot that passes by */
      }
    }
  } else if (warp < t.pairs * PAIR_WARPS) {
    niti_registers_raise<REGISTERS>();
    conv_bias_fetch<COLUMNS>(shared, t, rq, work, d.k);
    const int pair = warp / PAIR_WARPS, block = warp / 4 % BLOCKS;
    const bool leader = (threadIdx.x & 31) == 0;
    const uint32_t block_stride = (uint32_t)(t.across ? 64 : t.box_w * t.box_n) * CHUNK;
    const uint32_t box_descriptor = niti_descriptor(boxes + pair * t.boxes * t.box_stride + block * block_stride, 16);
    const uint32_t weight_descriptor = niti_descriptor(weights, 16);
    const uint32_t cell = (uint32_t)(t.box_n * CHUNK) >> 4,
                   row_gap = (uint32_t)(t.box_w - columns) * cell; /* between taps, rows */
    Ring box = {0, 0}, weight = {0, 0};
    auto let_pass = [&](int count) { /* stages that are for the other pair alone */
                                     for (int i = 0; i < count; ++i, weight.next(t.stages)) {
                                       niti_barrier_wait(weight_full + 8 * weight.stage, weight.parity);
                                       if (leader) give_back(weight_free + 8 * weight.stage, rank);
                                     }
    };
    let_pass(pair * late * steps);
    for (int i = 0; i < shared->tiles; ++i) {
      int acc[COLUMNS / 2];
      bool add = false;
      uint32_t last_weight = 0, last_box = 0;
      const TilePlace p = place_of(t, (work.begin + i * work.step) * t.pairs + pair);
      for (int chunk = 0; chunk < t.chunks; ++chunk, box.next(t.boxes)) {
        niti_barrier_wait(box_full + 8 * (pair * t.boxes + box.stage), box.parity);
        uint32_t a = box_descriptor + (box.stage * t.box_stride >> 4);
        for (int step = 0, column = 0; step < steps; ++step, weight.next(t.stages)) {
          niti_barrier_wait(weight_full + 8 * weight.stage, weight.parity);
          const uint32_t b = weight_descriptor + (weight.stage * stage_bytes >> 4);
          niti_wgmma_fence();
#pragma unroll
          for (int tap = 0; tap < TAPS; ++tap) {
#pragma unroll
            for (int s = 0; s < CHUNK / 32; ++s) {
              niti_wgmma<CONV_LAYOUT>(acc, a + tap * cell + 2 * s, b + (tap * TILE_BYTES >> 4) + 2 * s, add);
              add = true;
            }
          }
          niti_wgmma_commit();
          if (chunk == t.chunks - 1 && step == 0) conv_range_ask(range, rq);
          if (chunk + step > 0) { /* the products before these are done: their operands may be overwritten */
            niti_wgmma_wait<1>();
            if (leader) {
              give_back(weight_free + 8 * last_weight, rank);
              if (step == 0) niti_barrier_arrive(box_free + 8 * (pair * t.boxes + last_box));
            }
          }
          last_weight = weight.stage;
          column += TAPS;
          a += TAPS * cell;
          if (column == columns) column = 0, a += row_gap;
        }
        last_box = box.stage;
      }
      const NitiSpot spot = conv_spot(t, d, p, work, warp);
      uint2 mask = make_uint2(0, 0);
      if (niti_finish_masks<FINISH>(d)) mask = niti_mask_load(d, spot);
      niti_wgmma_wait<0>();
      if (leader) {
        give_back(weight_free + 8 * last_weight, rank);
        niti_barrier_arrive(box_free + 8 * (pair * t.boxes + last_box));
      }
      conv_finish<FINISH>(acc, t, d, rq, range, spot, mask, i, second, shared);
      if (passes)
        weight.skip(away * steps, t.stages);
      else
        let_pass(away * steps);
    }
    if (!second && !t.once) conv_range_leave(range, rq);
  }
  __syncwarp();
  niti_cluster_sync(); /* no block may go while the other still copies into it or gives back */
  if (second && threadIdx.x == 0) conv_range_end(rq, true);
#endif
}

void niti_wgmma_conv_streamed(NitiCuda *cuda, const ConvLaunch &l, unsigned blocks) {
  static const ConvKernel variants[][2] = CONV_VARIANTS(CONV_TAPS, streamed, BN);
  niti_wgmma_conv_launch(cuda, variants, l, blocks);
}
