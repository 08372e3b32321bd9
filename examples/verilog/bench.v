// Checks the two blocks against vectors that `niti vectors` wrote as hex: +COUNT accumulators (+SUMS) at +SHIFT must become +RESULTS; and +LENGTH products
// of +A and +B must sum to the one value in +SUM. Prints "passed N" or the first element that differs.
`timescale 1ns / 1ns
module bench;
  reg [31:0] sums[0:1048575], expected[0:0];
  reg [7:0] results[0:1048575], a[0:1048575], b[0:1048575];
  reg [2047:0] name;
  integer count, length, i;
  reg clock = 0, clear = 1, enable = 0;
  reg signed [7:0] x, y;
  reg signed [31:0] sum;
  reg [4:0] shift;
  wire signed [31:0] total;
  wire signed [7:0] result;
  multiply_accumulate mac (.clock(clock), .clear(clear), .enable(enable), .a(x), .b(y), .sum(total));
  requantise rounder (.sum(sum), .shift(shift), .result(result));

  initial begin
    if (!$value$plusargs("COUNT=%d", count)) count = 0;
    if (!$value$plusargs("LENGTH=%d", length)) length = 0;
    if (count > 0) begin
      if ($value$plusargs("SHIFT=%d", i)) shift = i;
      if ($value$plusargs("SUMS=%s", name)) $readmemh(name, sums, 0, count - 1);
      if ($value$plusargs("RESULTS=%s", name)) $readmemh(name, results, 0, count - 1);
    end
    for (i = 0; i < count; i = i + 1) begin
      sum = sums[i];
      #1;
      if (result !== $signed(results[i])) begin
        $display("element %0d: %0d at shift %0d gave %0d, expected %0d", i, sum, shift, result, $signed(results[i]));
        $finish;
      end
    end
    if (length > 0) begin
      if ($value$plusargs("A=%s", name)) $readmemh(name, a, 0, length - 1);
      if ($value$plusargs("B=%s", name)) $readmemh(name, b, 0, length - 1);
      if ($value$plusargs("SUM=%s", name)) $readmemh(name, expected, 0, 0);
      #1 clock = 1;
      #1 clock = 0;
      clear = 0;
      enable = 1;
      for (i = 0; i < length; i = i + 1) begin
        x = a[i];
        y = b[i];
        #1 clock = 1;
        #1 clock = 0;
      end
      if (total !== $signed(expected[0])) begin
        $display("the sum of %0d products is %0d, expected %0d", length, total, $signed(expected[0]));
        $finish;
      end
    end
    $display("passed %0d", count + length);
    $finish;
  end
endmodule
