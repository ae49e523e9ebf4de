// sqs-consumer with ten messages for each request; on_boto3.py sends.
//
// node on_sqs_consumer.cjs handleMessage|handleMessageBatch
//
// Not an ES module, because those are not looked up in NODE_PATH.
const { appendFileSync } = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");
const { SQSClient } = require("@aws-sdk/client-sqs");
const { Consumer } = require("sqs-consumer");

const monotonic = () => Number(process.hrtime.bigint()) / 1e9;

// As nap.py does it, but ten of them wait at once.
async function nap(message) {
  const [seconds, group, number] = JSON.parse(message.Body);
  const began = monotonic();
  if (seconds) await sleep(seconds * 1000);
  appendFileSync(process.env.NAPS, JSON.stringify([began, monotonic(), group, number]) + "\n");
  return message;
}

const handlers = {
  handleMessage: nap,
  handleMessageBatch: (messages) => Promise.all(messages.map(nap)),
};
const handler = process.argv[2];
const consumer = Consumer.create({
  queueUrl: `${process.env.QUEUE_URL_BASE}/default`,
  sqs: new SQSClient({ region: process.env.AWS_DEFAULT_REGION }),
  batchSize: 10,
  [handler]: handlers[handler],
});
for (const problem of ["error", "processing_error"]) consumer.on(problem, console.error);
consumer.start();
